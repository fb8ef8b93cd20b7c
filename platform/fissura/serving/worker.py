"""From the bytes of a photograph to the bytes of a reply, by one model.

Threads decode, measure and encode while the network works on another image. Large images have their own
threads, with a lower priority than those of small images.
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
from fissura.serving.query import MEDIA, ImageQuery, unsupported
from fissura.serving.waiting import LaneName, Room, lane_of, settled
from fissura.training.allocator import trim_memory
from fissura.training.out_of_memory import is_out_of_memory

Pixels = UInt8[np.ndarray, "h w 3"]

HELPERS = 2  # threads beside the network's, in each lane
NICENESS = 5  # of the lane of large images: a third of the small lane's CPU time, or all that is idle
AHEAD = 4  # decoded batches in the lane of small images
LARGE_PIXELS = 2**23  # a photograph of this size leaves a gigabyte of free memory in the process


@dataclass(frozen=True)
class Reply:
    """The reply for one image: `result` in JSON types and the requested picture, or the problem."""

    result: dict[str, Any]
    picture: bytes | None = None
    media_type: str = "application/json"
    problem: Problem | None = None


class Worker:
    """Replies to photographs with one model; each result states its `name` and `version`.

    Memory is bounded: the decoded pixels are at most those of one large image and of `AHEAD` batches of small
    ones.
    """

    def __init__(self, model: Model, limits: Limits, *, name: str = "default", version: int = 1) -> None:
        self.model, self._limits, self._service = model, limits, task_named(model.task).service
        self._head = {"model": name, "version": version, "run": model.manifest.run_id, "task": model.task}
        most = limits.batch_pixels if model.batches else 1
        self._lanes: dict[LaneName, _LaneThreads] = {
            "small": _LaneThreads(
                self._run_model, most_pixels=most, room=AHEAD * limits.batch_pixels, niceness=0
            ),
            "large": _LaneThreads(self._run_model, most_pixels=most, room=limits.pixels, niceness=NICENESS),
        }

    def close(self) -> None:
        """Ends the threads, and drops work that has not begun."""
        for lane in self._lanes.values():
            lane.close()

    async def answer(self, photograph: bytes, query: ImageQuery, *, seconds: float | None = None) -> Reply:
        """The reply for one image, with its problem if there is one; times out after `seconds`.

        When it returns, or is cancelled, no thread works on the image any more.
        """
        started = time.monotonic()
        try:
            self._check(query)
            async with asyncio.timeout(seconds):
                reply = await self._reply(photograph, query)
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
        seconds_taken = round(time.monotonic() - started, 4)
        return replace(reply, result={**self._head, **reply.result, "seconds": seconds_taken})

    async def _reply(self, photograph: bytes, query: ImageQuery) -> Reply:
        height, width = await self._lanes["small"].in_thread(read_header, photograph)
        lane = self._lanes[lane_of(height * width)]
        async with lane.room.held(height * width):
            try:
                decoded = await lane.in_thread(decode, photograph, max_pixels=self._limits.pixels)
                answer = await lane.batcher.submit(decoded.pixels, pixels=height * width)
                result = await lane.in_thread(self._result, answer, decoded, photograph, query)
                if query.form == "json":
                    return Reply(result)
                picture = await lane.in_thread(self._service.picture, answer, decoded, query)
                return Reply(result, picture, MEDIA[query.form])
            finally:
                if height * width > LARGE_PIXELS:
                    answer = decoded = None
                    await settled(asyncio.wrap_future(lane.helpers.submit(trim_memory)))

    def _check(self, query: ImageQuery) -> None:
        names = unsupported(query, parameters=self._service.parameters)
        if names:
            raise Refused(
                Problem(
                    "invalid-value",
                    f"a model for {self.model.task} is asked for what it gives",
                    f"{', '.join(f'`{name}`' for name in names)} asks for more",
                    "leave it out",
                )
            )

    def _result(
        self, answer: Answer, decoded: Photograph, photograph: bytes, query: ImageQuery
    ) -> dict[str, Any]:
        height, width = decoded.pixels.shape[:2]
        image = {
            "name": None,
            "height": height,
            "width": width,
            "sha256": hashlib.sha256(photograph).hexdigest(),
            "remarks": list(decoded.remarks),
        }
        return {"image": image, **self._service.result(answer, query)}

    def _run_model(self, images: Sequence[Pixels], wanted: Wanted) -> Sequence[Answer]:
        def on_windows(*_: int) -> None:
            if not wanted():
                raise _NobodyWaitsError

        try:
            return self.model(images, on_windows=on_windows)
        except UserError:
            raise
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise Refused(_too_much_memory()) from None
            raise


class _NobodyWaitsError(Exception):
    """No caller waits for the batch any more."""


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
        self.helpers = ThreadPoolExecutor(HELPERS, "photograph", _lower_priority, (niceness,))
        self._network = ThreadPoolExecutor(1, "network", _lower_priority, (niceness,))
        self.room = Room(room)
        self.batcher: PixelBatcher[Pixels, Answer] = PixelBatcher(
            run, most_pixels=most_pixels, executor=self._network
        )

    async def in_thread(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The result of `work`, run in a thread; when cancelled, it returns once the thread is done."""
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


def _lower_priority(niceness: int) -> None:
    """Raises the niceness of this thread; only Linux has one per thread, which the threads that it starts
    inherit."""
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
