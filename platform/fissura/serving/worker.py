"""From the bytes of a photograph to the bytes of an answer, one model's share of the service.

Decoding, measuring and encoding go on in threads while the network works on another image.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError, ModelError, UserError
from fissura.data.photograph import Photograph, decode
from fissura.engine.allocator import trim_memory
from fissura.engine.measures import measure_map
from fissura.engine.model import Answer, Classified, Model, Segmented
from fissura.scoring.pictures import jpeg, overlay, png
from fissura.serving.asked import MEDIA, Asked
from fissura.serving.batcher import PixelBatcher
from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused, unreadable

HELPERS = 2  # threads beside the network's
LARGE_PIXELS = 2**23  # of a photograph that leaves a gigabyte behind


@dataclass(frozen=True)
class Reply:
    """The answer for one image: `result` in JSON types, the picture that was asked for, or what is wrong."""

    result: dict[str, Any]
    picture: bytes | None = None
    media_type: str = "application/json"
    problem: Problem | None = None


class Worker:
    """Answers for photographs with one model; `name` and `version` are what each result says of it."""

    def __init__(self, model: Model, limits: Limits, *, name: str = "default", version: int = 1) -> None:
        self.model, self._limits = model, limits
        self._head = {"model": name, "version": version, "run": model.manifest.run_id, "task": model.task}
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="photograph")
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._batcher: PixelBatcher[UInt8[np.ndarray, "h w 3"], Answer] = PixelBatcher(
            self._answers, most_pixels=limits.batch_pixels if model.batches else 1, executor=self._network
        )

    def close(self) -> None:
        """Ends the threads; what they had not begun is dropped."""
        self._helpers.shutdown(wait=True, cancel_futures=True)
        self._network.shutdown(wait=True, cancel_futures=True)

    async def answer(self, photograph: bytes, asked: Asked) -> Reply:
        """The reply for one image; whatever is wrong with it is in the reply."""
        begin = time.monotonic()
        try:
            self._check(asked)
            decoded = await self._helping(decode, photograph, max_pixels=self._limits.pixels)
            height, width = decoded.pixels.shape[:2]
            found = await self._batcher.submit(decoded.pixels, pixels=height * width)
            if isinstance(found, Segmented) and asked.threshold is not None:
                found = Segmented(found.probability, asked.threshold)
            reply: Reply = await self._helping(_reply, found, decoded, photograph, asked)
            if height * width > LARGE_PIXELS:
                await self._helping(trim_memory)
        except ModelError:
            return Reply({}, problem=_no_numbers(self.model.manifest.run_id))
        except DataError as error:
            return Reply({}, problem=unreadable(error.problems[0]))
        except Refused as refused:
            return Reply({}, problem=refused.problem)
        except MemoryError:
            return Reply({}, problem=_too_much_memory())
        seconds = round(time.monotonic() - begin, 4)
        return replace(reply, result={**self._head, **reply.result, "seconds": seconds})

    async def _helping(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._helpers, lambda: work(*arguments, **named))

    def _check(self, asked: Asked) -> None:
        if self.model.task == "classification" and asked != Asked():
            raise Refused(
                Problem(
                    "invalid-value",
                    "of a classifier only a class can be asked",
                    "a picture, a scale or a threshold was asked for",
                    "leave `answer`, `mm_per_pixel` and `threshold` out",
                )
            )

    def _answers(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Answer]:
        try:
            return self.model(images)
        except UserError:
            raise
        except RuntimeError as error:
            # PyTorch has no class of its own for a CPU's lack of memory
            if "DefaultCPUAllocator" in str(error) or "out of memory" in str(error):
                raise Refused(_too_much_memory()) from None
            raise


def _no_numbers(run: str) -> Problem:
    return Problem(
        "failed",
        "a model gives numbers",
        f"run {run} gives values that are none",
        "look for damage with `fissura verify`, and serve another run",
    )


def _too_much_memory() -> Problem:
    return Problem(
        "too-large",
        "an image fits the memory of the service",
        "this one does not when it is worked on",
        "make it smaller, or start the service with lower --max-pixels and more memory",
    )


def _reply(found: Answer, decoded: Photograph, photograph: bytes, asked: Asked) -> Reply:
    height, width = decoded.pixels.shape[:2]
    image = {
        "name": None,
        "height": height,
        "width": width,
        "sha256": hashlib.sha256(photograph).hexdigest(),
        "remarks": list(decoded.remarks),
    }
    if isinstance(found, Classified):
        return Reply({"image": image, "label": found.label, "decisions": list(found.decisions)})
    measures = measure_map(found.probability, threshold=found.threshold, mm_per_pixel=asked.mm_per_pixel)
    result = {
        "image": image,
        "threshold": found.threshold,
        "cracks": measures.plain(),
        "crack_table": measures.table(),
    }
    return Reply(result, picture=_picture(found, decoded, asked), media_type=MEDIA[asked.form])


def _picture(found: Segmented, decoded: Photograph, asked: Asked) -> bytes | None:
    match asked.form:
        case "json":
            return None
        case "overlay":
            return jpeg(overlay(decoded.pixels, found.mask))
        case "probability":
            return png(found.probability)
        case "mask":
            return png(found.mask.astype(np.uint8) * 255)
