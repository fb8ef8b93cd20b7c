"""A graceful end: Ctrl-C or SIGTERM asks running trials to save their state, and the study's results are
still written."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

STOP = "stop"
LOOK_EVERY_SECONDS = 0.5


class StopFile:
    """A wish to stop, seen by all workers that share the study's folder."""

    def __init__(self, study: Path) -> None:
        self._path = study / STOP
        self._looked, self._seen = 0.0, False

    def request(self) -> None:
        """Asks everybody to stop."""
        self._path.touch()
        self._seen = True

    def clear(self) -> None:
        """Takes an earlier wish back."""
        self._path.unlink(missing_ok=True)
        self._looked, self._seen = 0.0, False

    def requested(self) -> bool:
        """Whether somebody asked to stop; the folder is looked at no more than twice a second."""
        now = time.monotonic()
        if not self._seen and now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            # storage that is gone for a while says nothing
            with suppress(OSError):
                self._seen = self._path.exists()
        return self._seen


@contextmanager
def stops_on_signals(stop: StopFile) -> Iterator[None]:
    """Inside the block, the first SIGINT or SIGTERM asks to stop; the second one interrupts at once."""

    def handle(number: int, _: FrameType | None) -> None:
        if stop.requested():
            raise KeyboardInterrupt(signal.Signals(number).name)
        stop.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
