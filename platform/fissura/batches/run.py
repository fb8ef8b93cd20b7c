"""Scores the images of a source into a sink: reads ahead, waits, retries, stops."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from fissura.batches.scorer import Busy, Failing, Scored, Scorer, Unreachable, Unscorable
from fissura.batches.sink import Sink
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError
from fissura.core.seeding import derive
from fissura.core.spec import Spec

T = TypeVar("T")
OnImage = Callable[[int, int], None]
Wait = Callable[[float], Awaitable[None]]


class Retry(Spec):
    """When to retry if the scorer is unreachable.

    After try n of at most `tries` the wait is `first_seconds` * 2^(n-1), at most `most_seconds`, times a
    random factor of 0.5 to 1. By default the waits add up to one or two minutes: enough for a service to
    restart.
    """

    tries: int = Field(10, ge=1)
    first_seconds: float = Field(0.5, gt=0)
    most_seconds: float = Field(30.0, gt=0)

    def seconds(self, failures: int, random_: random.Random) -> float:
        """The wait after so many failures (at least 1)."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** (failures - 1)) * random_.uniform(0.5, 1)


@dataclass(frozen=True)
class BatchResult:
    """The outcome of a batch: of its `images`, `done` have a row, and `failed` of these have no result.
    `stopped` says why it ended early; `results` is the table, once every image has a row.
    """

    images: int
    done: int
    failed: int
    stopped: str | None
    results: Path | None


async def score_all(
    source: ImageSource,
    scorer: Scorer,
    sink: Sink,
    *,
    concurrency: int = 8,
    on_image: OnImage | None = None,
    stop: asyncio.Event | None = None,
    retry: Retry | None = None,
    seed: int = 0,
    wait: Wait = asyncio.sleep,
) -> BatchResult:
    """Scores the images that have no row yet, `concurrency` at a time, and reads as many more ahead.

    Ends when `stop` is set, or when an image has used up its tries; the rows stay, and another call resumes.
    `on_image` is called with the number of images that have a row, and the total. `seed` decides the random
    waits between tries (by `wait`, in seconds).

    Raises:
        OSError: the results cannot be written.
        FissuraError: the scorer failed for another reason than the image, such as a wrong token.
    """
    work = _Work(source, scorer, sink, concurrency, retry or Retry(), seed, wait, on_image)
    stopped: str | None = None
    try:
        try:
            if await _until(stop or asyncio.Event(), [work.score_next_images() for _ in range(concurrency)]):
                stopped = "a stop was asked for"
        finally:
            await asyncio.shield(work.end())
    except Unreachable as error:
        stopped = str(error)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            sink.flush()
        raise
    await asyncio.to_thread(sink.flush)
    done, failed = len(sink.done & work.names), len(sink.failed & work.names)
    results = await asyncio.to_thread(sink.finish) if done == len(work.names) else None
    return BatchResult(len(work.names), done, failed, None if results else stopped, results)


async def _until(stop: asyncio.Event, work: list[Any]) -> bool:
    """Runs coroutines until all end, one raises, or `stop` is set; returns whether it stopped them."""
    stopping = asyncio.create_task(stop.wait())
    running = {asyncio.create_task(coroutine) for coroutine in work}
    tasks = [stopping, *running]
    try:
        while running and not stopping.done():
            ended, _ = await asyncio.wait({stopping, *running}, return_when=asyncio.FIRST_COMPLETED)
            for task in ended & running:
                task.result()
            running -= ended
        return bool(running)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class _Work:
    source: ImageSource
    scorer: Scorer
    sink: Sink
    concurrency: int
    retry: Retry
    seed: int
    wait: Wait
    on_image: OnImage | None

    def __post_init__(self) -> None:
        names = self.source.names()
        self.names, self._names = set(names), iter([name for name in names if name not in self.sink.done])
        self._done = len(self.names & self.sink.done)
        self._ahead: deque[tuple[str, asyncio.Task[bytes]]] = deque()
        self._threads = ThreadPoolExecutor(2 * self.concurrency, thread_name_prefix="batch")

    async def score_next_images(self) -> None:
        """Scores one image after the other, until none is left."""
        while self._read_ahead():
            name, reading = self._ahead.popleft()
            self._read_ahead()
            await self._score(name, reading)

    async def end(self) -> None:
        """Drops what was read ahead, and waits for rows that are being written."""
        readings = [reading for _, reading in self._ahead]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    def _read_ahead(self) -> bool:
        """Begins to read the next images; returns whether there is one to score."""
        while len(self._ahead) < self.concurrency and (name := next(self._names, None)) is not None:
            self._ahead.append((name, asyncio.create_task(self._read(name))))
        return bool(self._ahead)

    async def _score(self, name: str, reading: "asyncio.Task[bytes]") -> None:
        photograph: bytes | None = None
        try:
            photograph = await reading
            scored: Scored = await self._retry(name, partial(self.scorer.score, name, photograph))
        except Unscorable as error:
            await self._in_thread(partial(self.sink.fail, name, str(error), photograph=photograph))
        else:
            await self._in_thread(partial(self.sink.add, name, scored))
        self._done += 1
        if self.on_image is not None:
            self.on_image(self._done, len(self.names))

    async def _read(self, name: str) -> bytes:
        async def attempt() -> bytes:
            try:
                return await self._in_thread(partial(self.source.read, name))
            except DataError as error:
                raise Unscorable(str(error)) from None
            except OSError as error:
                reason = " ".join(str(error.strerror or error).split())[:300]
                raise Unreachable(f"{name}: cannot be read now ({reason})") from None

        return await self._retry(name, attempt)

    async def _retry(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that reaches the scorer."""
        random_, failures = random.Random(derive(self.seed, "retry", name)), 0
        while True:
            try:
                return await attempt()
            except Busy as busy:
                # with jitter, so that images with the same Retry-After do not return together
                seconds = busy.seconds * random_.uniform(1, 1.25)
            except Unreachable as error:
                failures += 1
                if failures == self.retry.tries:
                    if isinstance(error, Failing):
                        raise Unscorable(f"{error} (tried {failures} times)") from None
                    raise
                seconds = self.retry.seconds(failures, random_)
            await self.wait(seconds)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
