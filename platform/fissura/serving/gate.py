"""Who is let in: a bound on what waits, by the time that it will take."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused
from fissura.serving.waiting import OVERHEAD, LaneName, lane_of

HALF_LIFE_SECONDS = 10.0


class WaitingLane:
    """What waits in one lane, and how fast it is answered: the mean over the time in which something waited;
    what lies `HALF_LIFE_SECONDS` of it back counts half."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.images = self.pixels = 0  # that wait, the pixels with the overhead of each image
        self._answered = self._busy = 0.0  # pixels, and the seconds that they took, both fading
        self._counted_to, self._since_leave = clock(), 0.0

    @property
    def has_speed(self) -> bool:
        """Whether an answer was seen."""
        return self._answered > 0

    @property
    def seconds_ahead(self) -> float:
        """How long what waits will take; 0 until a speed was seen."""
        return self.pixels * self._busy / self._answered if self._answered else 0.0

    @property
    def standing_seconds(self) -> float:
        """How long something has waited since an image left."""
        self._count_time()
        return self._since_leave

    def come(self, images: int, pixels: int) -> None:
        """So many images begin to wait."""
        self._count_time()
        self.images += images
        self.pixels += pixels

    def leave(self, images: int, pixels: int, *, answered: bool) -> None:
        """They wait no longer. Of those that were not answered nobody knows how much was done: they leave
        the speed as it is."""
        self._count_time()
        self.images -= images
        self.pixels -= pixels
        if not answered and not self._busy:
            self._since_leave = 0.0
            return
        work = pixels if answered else min(pixels, self._since_leave * self._answered / self._busy)
        fading = 0.5 ** (self._since_leave / HALF_LIFE_SECONDS)
        self._answered = self._answered * fading + work
        self._busy = self._busy * fading + self._since_leave
        self._since_leave = 0.0

    def _count_time(self) -> None:
        now = self._clock()
        if self.images:
            self._since_leave += now - self._counted_to
        self._counted_to = now


class Gate:
    """Counts the bytes and images that wait, and how fast images are answered, the small and the large ones
    apart, as they do not wait for one another.

    Until a speed was seen, one batch of the network is let in. A request that finds nothing waiting is always
    let in, so that no image is too large to be ever answered.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._lanes: dict[LaneName, WaitingLane] = {name: WaitingLane(clock) for name in get_args(LaneName)}
        self.bytes = self.refused = 0

    @property
    def images(self) -> int:
        """That wait."""
        return sum(lane.images for lane in self._lanes.values())

    @property
    def seconds_ahead(self) -> float:
        """How long what waits will take, in seconds."""
        return max(lane.seconds_ahead for lane in self._lanes.values())

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
        # whatever its images turn out to be
        if all(lane.seconds_ahead > limits.waiting_seconds for lane in self._lanes.values()):
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
        in_lanes = {
            name: [size + OVERHEAD for size in sizes if lane_of(size) == name] for name in self._lanes
        }
        for name, costs in in_lanes.items():
            if costs and self._crowded(self._lanes[name], len(sizes)):
                raise self._too_many(self._lanes[name])
        for name, costs in in_lanes.items():
            self._lanes[name].come(len(costs), sum(costs))

        def answered(size: int) -> None:
            name, cost = lane_of(size), size + OVERHEAD
            in_lanes[name].remove(cost)
            self._lanes[name].leave(1, cost, answered=True)

        try:
            yield answered
        finally:
            for name, costs in in_lanes.items():
                if costs:
                    self._lanes[name].leave(len(costs), sum(costs), answered=False)

    def _crowded(self, lane: WaitingLane, more: int) -> bool:
        limits = self._limits
        return (self.images > 0 and self.images + more > limits.waiting_images) or (
            lane.images > 0
            and (
                lane.seconds_ahead > limits.waiting_seconds
                or (not lane.has_speed and lane.pixels > limits.batch_pixels)
            )
        )

    def _too_many(self, lane: WaitingLane | None = None) -> Refused:
        self.refused += 1
        limits, ahead = self._limits, lane.seconds_ahead if lane else self.seconds_ahead
        # half of what waits has gone then, or as much as must for others to be let in
        wait = max(ahead / 2, ahead - limits.waiting_seconds)
        if lane and not lane.has_speed:
            wait = lane.standing_seconds
        return Refused(
            Problem(
                "too-many-waiting",
                f"what waits takes at most {limits.waiting_seconds:g} s, and is at most"
                f" {limits.waiting_images} images and {limits.waiting_bytes} bytes",
                f"{self.images} images of {self.bytes} bytes are waiting, about {ahead:.0f} s of work",
                "send the request again after the seconds of Retry-After",
                retry_after=max(1, math.ceil(min(wait, limits.seconds))),
            )
        )
