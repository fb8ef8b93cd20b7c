"""Progress within the images of a batch: one photograph of 36 megapixels takes a CPU minutes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from fissura.core.progress import Say
from fissura.core.text import clock, count
from fissura.deploy.model import Model
from fissura.distributed.periodic import every

EVERY_SECONDS = 15.0  # between two lines while no image finishes
REPORT_EVERY_SECONDS = 1.0  # of a worker
LARGE_PIXELS = 2**22
SHOWN = 3


class Board:
    """An actor: the window that each worker is at, for the job to read."""

    def __init__(self) -> None:
        self._lines: dict[int, str] = {}

    def write(self, worker: int, line: str) -> None:
        """Notes a worker's progress; an empty line if its image is not large."""
        self._lines[worker] = line

    def read(self) -> list[str]:
        """The progress of the workers that reported any."""
        return [line for line in self._lines.values() if line]


def watched(model: Model, *, worker: int, tell: Callable[[int, str], Any]) -> Model:
    """The model, which reports the finished windows of large images through `tell`."""
    last = 0.0

    def on_windows(done: int, total: int, height: int, width: int) -> None:
        nonlocal last
        if height * width <= LARGE_PIXELS or (
            done < total and time.monotonic() - last < REPORT_EVERY_SECONDS
        ):
            return
        last = time.monotonic()
        tell(worker, f"{done} of {total} windows of an image of {width}x{height}" if done < total else "")

    return model.watched(on_windows)


class Standstill:
    """Reports the progress within images when none has finished for some time."""

    def __init__(self, say: Say, total: int) -> None:
        self._say, self._total = say, total
        self._done, self._since, self._begin = -1, time.monotonic(), time.monotonic()

    def look(self, done: int, read: Callable[[], list[str]]) -> None:
        """Call it repeatedly with the number of finished images."""
        now = time.monotonic()
        if done != self._done:
            self._done, self._since = done, now
        elif now - self._since >= EVERY_SECONDS:
            self._since = now
            done_of_all = f"{done} of {count(self._total, 'image')}"
            self._say(" · ".join([clock(now - self._begin), done_of_all, *read()[:SHOWN]]))


@contextmanager
def progress_reports(board: Any, standstill: Standstill, done: Callable[[], int]) -> Iterator[None]:
    """Inside the block, a thread reads the board and reports a standstill."""

    def read() -> list[str]:
        try:
            lines: list[str] = ray.get(board.read.remote(), timeout=REPORT_EVERY_SECONDS)
        except RayError:  # the batch works without the board
            return []
        return lines

    def look() -> None:
        standstill.look(done(), read)

    with every(min(1.0, EVERY_SECONDS), look):
        yield
