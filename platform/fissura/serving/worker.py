"""From the bytes of a photograph to the bytes of an answer, one model's share of the service.

Decoding, measuring and encoding go on in threads while the network works on another image. Large images have
threads of their own, which let those of the small ones go first.
"""

import asyncio
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError, ModelError, UserError
from fissura.core.tasks import task_named
from fissura.data.photograph import Photograph, decode, read_header
from fissura.deploy.model import Answer, Model
from fissura.serving.batcher import PixelBatcher, Wanted
from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused, too_slow, unreadable
from fissura.serving.query import MEDIA, Asked, needless
from fissura.serving.waiting import LaneName, Room, lane_of, settled
from fissura.training.allocator import trim_memory
from fissura.training.out_of_memory import is_out_of_memory

Pixels = UInt8[np.ndarray, "h w 3"]

HELPERS = 2  # threads beside the network's, in each lane
NICENESS = 5  # of the lane of large images: a third of what the small ones get, and all that they leave
AHEAD = 4  # batches that the lane of small images may have decoded
LARGE_PIXELS = 2**23  # of a photograph that leaves a gigabyte behind


@dataclass(frozen=True)
class Reply:
    """The answer for one image: `result` in JSON types, the picture that was asked for, or what is wrong."""

    result: dict[str, Any]
    picture: bytes | None = None
    media_type: str = "application/json"
    problem: Problem | None = None


class Worker:
    """Answers for photographs with one model; `name` and `version` are what each result says of it.

    So many pixels are decoded at a time as one image may have, and `AHEAD` batches of small images beside
    them: memory is bounded whatever arrives.
    """

    def __init__(self, model: Model, limits: Limits, *, name: str = "default", version: int = 1) -> None:
        self.model, self._limits, self._service = model, limits, task_named(model.task).service
        self._head = {"model": name, "version": version, "run": model.manifest.run_id, "task": model.task}
        most = limits.batch_pixels if model.batches else 1
        self._lanes: dict[LaneName, _LaneThreads] = {
            "small": _LaneThreads(
                self._answers, most_pixels=most, room=AHEAD * limits.batch_pixels, niceness=0
            ),
            "large": _LaneThreads(self._answers, most_pixels=most, room=limits.pixels, niceness=NICENESS),
        }

    def close(self) -> None:
        """Ends the threads; what they had not begun is dropped."""
        for lane in self._lanes.values():
            lane.close()

    async def answer(self, photograph: bytes, asked: Asked, *, seconds: float | None = None) -> Reply:
        """The reply for one image; whatever is wrong with it is in the reply. After `seconds` it is given up.

        However it ends, also where its caller is cancelled, nothing of the image is worked on any more.
        """
        begin = time.monotonic()
        try:
            self._check(asked)
            async with asyncio.timeout(seconds):
                reply = await self._reply(photograph, asked)
        except TimeoutError:
            return Reply({}, problem=too_slow(seconds or 0))
        except ModelError:
            return Reply({}, problem=_no_numbers(self.model.manifest.run_id))
        except DataError as error:
            return Reply({}, problem=unreadable(error.problems[0]))
        except Refused as refused:
            return Reply({}, problem=refused.problem)
        except MemoryError:
            return Reply({}, problem=_too_much_memory())
        took = round(time.monotonic() - begin, 4)
        return replace(reply, result={**self._head, **reply.result, "seconds": took})

    async def _reply(self, photograph: bytes, asked: Asked) -> Reply:
        height, width = await self._lanes["small"].helping(read_header, photograph)
        lane = self._lanes[lane_of(height * width)]
        async with lane.room.held(height * width):
            try:
                decoded = await lane.helping(decode, photograph, max_pixels=self._limits.pixels)
                found = await lane.batcher.submit(decoded.pixels, pixels=height * width)
                result = await lane.helping(self._result, found, decoded, photograph, asked)
                if asked.form == "json":
                    return Reply(result)
                picture = await lane.helping(self._service.picture, found, decoded, asked)
                return Reply(result, picture, MEDIA[asked.form])
            finally:
                if height * width > LARGE_PIXELS:
                    found = decoded = None
                    await settled(asyncio.wrap_future(lane.helpers.submit(trim_memory)))

    def _check(self, asked: Asked) -> None:
        beyond = needless(asked, parameters=self._service.parameters)
        if beyond:
            raise Refused(
                Problem(
                    "invalid-value",
                    f"a model for {self.model.task} is asked for what it gives",
                    f"{', '.join(f'`{name}`' for name in beyond)} asks for more",
                    "leave it out",
                )
            )

    def _result(self, found: Answer, decoded: Photograph, photograph: bytes, asked: Asked) -> dict[str, Any]:
        height, width = decoded.pixels.shape[:2]
        image = {
            "name": None,
            "height": height,
            "width": width,
            "sha256": hashlib.sha256(photograph).hexdigest(),
            "remarks": list(decoded.remarks),
        }
        return {"image": image, **self._service.result(found, asked)}

    def _answers(self, images: Sequence[Pixels], wanted: Wanted) -> Sequence[Answer]:
        def on_windows(*_: int) -> None:
            if not wanted():
                raise _Unwanted

        try:
            return self.model(images, on_windows=on_windows)
        except UserError:
            raise
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise Refused(_too_much_memory()) from None
            raise


class _Unwanted(Exception):
    """Nobody waits for what is worked on."""


class _LaneThreads:
    """The threads of the small or of the large images, and room for their pixels."""

    def __init__(
        self,
        run: Callable[[Sequence[Pixels], Wanted], Sequence[Answer]],
        *,
        most_pixels: int,
        room: int,
        niceness: int,
    ) -> None:
        self.helpers = ThreadPoolExecutor(HELPERS, "photograph", _step_back, (niceness,))
        self._network = ThreadPoolExecutor(1, "network", _step_back, (niceness,))
        self.room = Room(room)
        self.batcher: PixelBatcher[Pixels, Answer] = PixelBatcher(
            run, most_pixels=most_pixels, executor=self._network
        )

    async def helping(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What `work` gives, done in a thread; where its caller is cancelled it ends when the thread has."""
        job = self.helpers.submit(work, *arguments, **named)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancel():
                await settled(asyncio.wrap_future(job))
            raise

    def close(self) -> None:
        """Ends the threads."""
        for threads in (self.helpers, self._network):
            threads.shutdown(wait=True, cancel_futures=True)


def _step_back(niceness: int) -> None:
    """Lets threads of a lower niceness go first; on Linux alone a thread, and those that it starts for its
    arithmetic, have one of their own."""
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)


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
