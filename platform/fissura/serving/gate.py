"""Admission: bounds the queue by the time that it will take."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused
from fissura.serving.waiting import OVERHEAD, LaneName, lane_of

HALF_LIFE_SECONDS = 10.0


class WaitingLane:
    """The queue of one lane, and its speed: a mean over the time in which images waited; what is
    `HALF_LIFE_SECONDS` of it old counts half."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.images = self.pixels = 0  # waiting; pixels include the overhead of each image
        self._answered = self._busy = 0.0  # pixels, and the seconds that they took, both decaying
        self._counted_to, self._since_leave = clock(), 0.0

    @property
    def has_speed(self) -> bool:
        """Whether an image was answered."""
        return self._answered > 0

    @property
    def seconds_ahead(self) -> float:
        """Seconds that the waiting images will take; 0 until a speed is known."""
        return self.pixels * self._busy / self._answered if self._answered else 0.0

    @property
    def stalled_seconds(self) -> float:
        """Seconds of waiting since an image last left."""
        self._count_time()
        return self._since_leave

    def enter(self, images: int, pixels: int) -> None:
        """Adds images to the queue."""
        self._count_time()
        self.images += images
        self.pixels += pixels

    def leave(self, images: int, pixels: int, *, answered: bool) -> None:
        """Removes images from the queue. The work done on unanswered ones is unknown: they leave the speed
        unchanged."""
        self._count_time()
        self.images -= images
        self.pixels -= pixels
        if not answered and not self._busy:
            self._since_leave = 0.0
            return
        work = pixels if answered else min(pixels, self._since_leave * self._answered / self._busy)
        decay = 0.5 ** (self._since_leave / HALF_LIFE_SECONDS)
        self._answered = self._answered * decay + work
        self._busy = self._busy * decay + self._since_leave
        self._since_leave = 0.0

    def _count_time(self) -> None:
        now = self._clock()
        if self.images:
            self._since_leave += now - self._counted_to
        self._counted_to = now


class Gate:
    """Counts the waiting bytes and images, and measures the speed of small and large images separately, as
    they do not wait for one another.

    Until a speed is known, one batch of the network is admitted. A request that finds an empty queue is
    always admitted, so that no image is too large to be answered.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._lanes: dict[LaneName, WaitingLane] = {name: WaitingLane(clock) for name in get_args(LaneName)}
        self.bytes = self.refused = 0

    @property
    def images(self) -> int:
        """Waiting images."""
        return sum(lane.images for lane in self._lanes.values())

    @property
    def seconds_ahead(self) -> float:
        """Seconds that the waiting images will take."""
        return max(lane.seconds_ahead for lane in self._lanes.values())

    @contextmanager
    def held(self, *, claimed: int) -> Iterator[Callable[[int], None]]:
        """Inside the block a body is held. Yields a function to call with the bytes as they arrive; only
        these count for other requests, while `claimed`, the Content-Length, counts for this one.

        Raises:
            Refused: the queue is full; the body need not be read. The yielded function raises it too.
        """
        limits, held_bytes = self._limits, 0
        if self.bytes and self.bytes + claimed > limits.waiting_bytes:
            raise self._queue_full()
        # whichever lane its images will need
        if all(lane.seconds_ahead > limits.waiting_seconds for lane in self._lanes.values()):
            raise self._queue_full()

        def arrived(size: int) -> None:
            nonlocal held_bytes
            if self.bytes > held_bytes and self.bytes + size > limits.waiting_bytes:
                raise self._queue_full()
            held_bytes += size
            self.bytes += size

        try:
            yield arrived
        finally:
            self.bytes -= held_bytes

    @contextmanager
    def admitted(self, sizes: Sequence[int]) -> Iterator[Callable[[int], None]]:
        """Inside the block images of these pixels wait. Yields a function to call with the pixels of each
        answered image, which then leaves the queue.

        Raises:
            Refused: the queue is full.
        """
        costs_by_lane = {
            name: [size + OVERHEAD for size in sizes if lane_of(size) == name] for name in self._lanes
        }
        for name, costs in costs_by_lane.items():
            if costs and self._is_full(self._lanes[name], len(sizes)):
                raise self._queue_full(self._lanes[name])
        for name, costs in costs_by_lane.items():
            self._lanes[name].enter(len(costs), sum(costs))

        def answered(size: int) -> None:
            name, cost = lane_of(size), size + OVERHEAD
            costs_by_lane[name].remove(cost)
            self._lanes[name].leave(1, cost, answered=True)

        try:
            yield answered
        finally:
            for name, costs in costs_by_lane.items():
                if costs:
                    self._lanes[name].leave(len(costs), sum(costs), answered=False)

    def _is_full(self, lane: WaitingLane, more: int) -> bool:
        limits = self._limits
        return (self.images > 0 and self.images + more > limits.waiting_images) or (
            lane.images > 0
            and (
                lane.seconds_ahead > limits.waiting_seconds
                or (not lane.has_speed and lane.pixels > limits.batch_pixels)
            )
        )

    def _queue_full(self, lane: WaitingLane | None = None) -> Refused:
        self.refused += 1
        limits, seconds_ahead = self._limits, lane.seconds_ahead if lane else self.seconds_ahead
        # by then half of the queue is done, or as much as needed to admit more
        wait = max(seconds_ahead / 2, seconds_ahead - limits.waiting_seconds)
        if lane and not lane.has_speed:
            wait = lane.stalled_seconds
        return Refused(
            Problem(
                "too-many-waiting",
                f"what waits takes at most {limits.waiting_seconds:g} s, and is at most"
                f" {limits.waiting_images} images and {limits.waiting_bytes} bytes",
                f"{self.images} images of {self.bytes} bytes are waiting, about {seconds_ahead:.0f} s"
                " of work",
                "send the request again after the seconds of Retry-After",
                retry_after=max(1, math.ceil(min(wait, limits.seconds))),
            )
        )
