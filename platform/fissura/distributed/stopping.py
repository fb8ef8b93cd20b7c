"""A graceful stop: on Ctrl-C or SIGTERM, running trials save their state, and the study still writes its
results."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from fissura.core.signals import handled

STOP = "stop"
LOOK_EVERY_SECONDS = 0.5


class StopFile:
    """A stop request, seen by all workers that share the study's folder."""

    def __init__(self, study: Path) -> None:
        self._path = study / STOP
        self._looked, self._seen = 0.0, False

    def request(self) -> None:
        """Requests a stop."""
        self._path.touch()
        self._seen = True

    def clear(self) -> None:
        """Withdraws an earlier request."""
        self._path.unlink(missing_ok=True)
        self._looked, self._seen = 0.0, False

    def requested(self) -> bool:
        """Whether a stop is requested; looks at the folder at most twice a second."""
        now = time.monotonic()
        if not self._seen and now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            # unavailable storage counts as no request
            with suppress(OSError):
                self._seen = self._path.exists()
        return self._seen


@contextmanager
def stops_on_signals(stop: StopFile) -> Iterator[None]:
    """Inside the block, the first SIGINT or SIGTERM requests a stop; the second one interrupts at once."""

    def handle(number: int, _: FrameType | None) -> None:
        if stop.requested():
            raise KeyboardInterrupt(signal.Signals(number).name)
        stop.request()

    with handled(handle):
        yield
