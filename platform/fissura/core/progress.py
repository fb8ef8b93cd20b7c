"""What long work tells while it goes on, a line each, and to whom."""

import time
from collections.abc import Callable

Say = Callable[[str], None]
OnStep = Callable[[int, str], None]
"""Told the number of an epoch, and what of it is done: "step 3 of 120"."""
FIRST_REMINDER_SECONDS, LONGEST_INTERVAL_SECONDS = 15.0, 60.0


def silent(_: str) -> None:
    """Tells nobody."""


class Reminders:
    """When something that takes long is told of: after 15 s, then at rising intervals, each of a minute at
    most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begins anew: something else has been told."""
        self._begin, self._interval = self._clock(), FIRST_REMINDER_SECONDS
        self._next = self._begin + self._interval

    def left(self) -> float:
        """Seconds until the next."""
        return self._next - self._clock()

    def due(self) -> float:
        """Seconds since the beginning where it is time for the next; 0 where it is not."""
        now = self._clock()
        if now < self._next:
            return 0.0
        self._interval = min(2 * self._interval, LONGEST_INTERVAL_SECONDS)
        self._next = now + self._interval
        return now - self._begin
