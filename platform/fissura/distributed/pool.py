"""A pool of Ray actors that processes lists chunk by chunk and replaces actors that die."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import RayError, RayTaskError

from fissura.core import text
from fissura.core.errors import DataError, FissuraError, Interrupted, named
from fissura.core.progress import Reminders, Say
from fissura.distributed.stopping import StopFile

SECONDS_A_CHUNK = 10.0
MOST_A_CHUNK = 4096
DEATHS_IN_A_ROW = 16  # more than it takes to halve the largest chunk down to one bad item
SAY_EVERY_SECONDS = 3.0
LOOK_EVERY_SECONDS = 0.5

Item = dict[str, Any]


class Pool:
    """At most `size` actors, started on demand, and ended with the block.

    `start` returns a handle of a new actor, whose `work(*arguments, items)` returns `{"reasons": {key: why
    the item has no result}, "problems": [what ends the work]}`; items are plain data with a `key` each.
    """

    def __init__(self, start: Callable[[], Any], *, size: int) -> None:
        self.size = max(1, size)
        self._start = start
        self._idle: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._idle:
            ray.kill(actor)
        self._idle.clear()

    def run(
        self,
        items: Sequence[Item],
        *,
        arguments: tuple[Any, ...] = (),
        least: int = 1,
        say: Say,
        stop: StopFile | None = None,
    ) -> dict[str, str]:
        """Processes all items; returns the reasons why items have no result, by key.

        A chunk takes an actor some ten seconds and has at least `least` items; the last ones are smaller, so
        that the actors end together. Reports through `say` how many are done when that changes, and at rising
        intervals while it does not. A chunk whose actor dies is retried whole, then in halves, so that an
        item that kills its actors fails alone.

        Raises:
            DataError: an actor had a problem that ends the work.
            Interrupted: a stop was requested; finished chunks stay.
            FissuraError: an actor failed, or many in a row died.
        """
        work = _PoolWork(items, workers=self.size, least=least)
        running: dict[Any, _Running] = {}
        reported, told, standing = time.monotonic(), 0, Reminders(time.monotonic)
        try:
            while True:
                while len(running) < self.size and (chunk := work.next()) is not None:
                    actor = self._idle.pop() if self._idle else self._start()
                    task = actor.work.remote(*arguments, chunk.items)
                    running[task] = _Running(actor, chunk, time.monotonic())
                if not running:
                    return work.reasons
                ready, _ = ray.wait(list(running), timeout=LOOK_EVERY_SECONDS)
                for task in ready:
                    self._collect(task, running.pop(task), work)
                if stop is not None and stop.requested():
                    raise Interrupted(
                        f"stopped on request after {work.done} of {len(items)}; call again to go on"
                    )
                if work.done in (told, len(items)):
                    if waited := standing.due():
                        say(f"{work.done}/{len(items)}, for {text.duration(waited)} now")
                elif time.monotonic() - reported >= SAY_EVERY_SECONDS:
                    reported, told = time.monotonic(), work.done
                    standing.restart()
                    say(f"{told}/{len(items)}")
        finally:
            for job in running.values():
                ray.kill(job.actor)

    def _collect(self, task: Any, running: "_Running", work: "_PoolWork") -> None:
        try:
            outcome = ray.get(task)
        except RayTaskError as error:
            self._idle.append(running.actor)
            raise FissuraError(f"a worker failed: {named(error.cause)}") from error
        except RayError as error:
            work.died(running.chunk, error)
            return
        self._idle.append(running.actor)
        if outcome["problems"]:
            raise DataError(*outcome["problems"])
        work.finished(running.chunk, seconds=time.monotonic() - running.begin, reasons=outcome["reasons"])


class _Chunk(NamedTuple):
    items: list[Item]
    died: bool


class _Running(NamedTuple):
    actor: Any
    chunk: _Chunk
    begin: float


class _PoolWork:
    """The remaining items of a list, and the outcome of the others."""

    def __init__(self, items: Sequence[Item], *, workers: int, least: int) -> None:
        self._todo, self._again = deque(items), deque[_Chunk]()
        self._workers, self._least, self._size = workers, least, least
        self._deaths = 0
        self.done = 0
        self.reasons: dict[str, str] = {}

    def next(self) -> _Chunk | None:
        """The next chunk for an actor; None: there is none."""
        if not self._todo:
            return self._again.popleft() if self._again else None
        share = math.ceil(len(self._todo) / self._workers)
        count = min(self._size, max(share, self._least // 4, 1), len(self._todo))
        return _Chunk([self._todo.popleft() for _ in range(count)], died=False)

    def finished(self, chunk: _Chunk, *, seconds: float, reasons: dict[str, str]) -> None:
        """Records the outcome of a chunk, and sizes the next ones by its pace."""
        self._deaths = 0
        self.done += len(chunk.items)
        self.reasons |= reasons
        pace = len(chunk.items) / max(seconds, 1e-3)
        self._size = max(self._least, min(MOST_A_CHUNK, int(pace * SECONDS_A_CHUNK)))

    def died(self, chunk: _Chunk, error: RayError) -> None:
        """Plans the retry of a chunk whose actor died."""
        self._deaths += 1
        if self._deaths > DEATHS_IN_A_ROW:
            raise FissuraError(
                f"{self._deaths} workers in a row died before they finished anything, the last one with"
                f" {named(error)}; look into Ray's logs, or let fewer work at a time if memory is short"
            ) from error
        middle = len(chunk.items) // 2
        if not chunk.died:
            self._again.append(_Chunk(chunk.items, died=True))
        elif middle:
            self._again += [_Chunk(half, died=True) for half in (chunk.items[:middle], chunk.items[middle:])]
        else:
            self.done += 1
            self.reasons[chunk.items[0]["key"]] = (
                f"its worker died while it was at work on it alone ({named(error)}); look at the file, or"
                " leave it out"
            )
