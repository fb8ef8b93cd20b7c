"""Who is let in: a bound on what waits, by the time that it will take."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused

HALF_LIFE_SECONDS = 10.0
OVERHEAD = 2**16
"""The pixels that take as long as what an image costs whatever its size."""


class Gate:
    """Counts the bytes and images that wait, and how fast images are answered.

    The speed is the mean over the time in which something waited; what lies `HALF_LIFE_SECONDS` of it back
    counts half. Until a speed was seen, one batch of the network is let in. A request that finds nothing
    waiting is always let in, so that no image is too large to be ever answered.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self.images = self.bytes = 0
        self.refused = 0
        self._pixels = 0  # that wait, with the overhead of each image
        self._answered = self._busy = 0.0  # pixels, and the seconds that they took, both fading
        self._counted_to, self._since_answer = clock(), 0.0

    @property
    def seconds_ahead(self) -> float:
        """How long what waits will take, in seconds; 0 until a speed was seen."""
        return self._pixels * self._busy / self._answered if self._answered else 0.0

    @contextmanager
    def held(self, *, claimed: int) -> Iterator[Callable[[int], None]]:
        """Inside the block a body is held. What it gives is told of its bytes as they arrive, which alone
        count for others; the bytes that it says it has, `claimed`, count for itself.

        Raises:
            Refused: too much is waiting; the body need not be read. What it gives raises it too.
        """
        limits, held = self._limits, 0
        if self.bytes and self.bytes + claimed > limits.waiting_bytes:
            raise self._too_many()
        if self.images and self.seconds_ahead > limits.waiting_seconds:
            raise self._too_many()

        def arrived(size: int) -> None:
            nonlocal held
            if self.bytes > held and self.bytes + size > limits.waiting_bytes:
                raise self._too_many()
            held += size
            self.bytes += size

        try:
            yield arrived
        finally:
            self.bytes -= held

    @contextmanager
    def admitted(self, sizes: Sequence[int]) -> Iterator[Callable[[int], None]]:
        """Inside the block images of so many pixels each wait. What it gives is told the pixels of each image
        that is answered, which then waits no longer.

        Raises:
            Refused: too much is waiting.
        """
        if self.images and self._crowded(len(sizes)):
            raise self._too_many()
        images, pixels = len(sizes), sum(sizes) + OVERHEAD * len(sizes)
        self._count_time()
        self.images += images
        self._pixels += pixels

        def answered(size: int) -> None:
            nonlocal images, pixels
            cost = size + OVERHEAD
            images, pixels = images - 1, pixels - cost
            self._leave(1, cost, work=cost)

        try:
            yield answered
        finally:
            if images:
                # what its header promised of an image that failed was no work
                self._leave(images, pixels, work=OVERHEAD * images)

    def _crowded(self, more: int) -> bool:
        limits = self._limits
        return (
            self.images + more > limits.waiting_images
            or self.seconds_ahead > limits.waiting_seconds
            or (not self._answered and self._pixels > limits.batch_pixels)
        )

    def _leave(self, images: int, pixels: int, *, work: int) -> None:
        self._count_time()
        self.images -= images
        self._pixels -= pixels
        fading = 0.5 ** (self._since_answer / HALF_LIFE_SECONDS)
        self._answered = self._answered * fading + work
        self._busy = self._busy * fading + self._since_answer
        self._since_answer = 0.0

    def _count_time(self) -> None:
        now = self._clock()
        if self.images:
            self._since_answer += now - self._counted_to
        self._counted_to = now

    def _too_many(self) -> Refused:
        self.refused += 1
        limits, ahead = self._limits, self.seconds_ahead
        return Refused(
            Problem(
                "too-many-waiting",
                f"what waits takes at most {limits.waiting_seconds:g} s, and is at most"
                f" {limits.waiting_images} images and {limits.waiting_bytes} bytes",
                f"{self.images} images of {self.bytes} bytes are waiting, about {ahead:.0f} s of work",
                "send the request again after the seconds of Retry-After",
                retry_after=max(1, math.ceil(min(ahead, limits.waiting_seconds) / 2)),
            )
        )
