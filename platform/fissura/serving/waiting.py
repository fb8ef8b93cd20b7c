"""How images wait: in two lanes, the shortest first, and for memory."""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
LaneName = Literal["small", "large"]

SMALL_PIXELS = 2**20
"""Larger images take the lane of the large ones."""
OVERHEAD = 2**16
"""The fixed cost of an image, in pixels that take as long."""
OVERTAKEN = 4


def lane_of(pixels: int) -> LaneName:
    """The lane of an image of so many pixels: small images do not wait for large ones."""
    return "small" if pixels <= SMALL_PIXELS else "large"


class ShortestFirst(Generic[Item]):
    """A queue: cheaper items overtake an item until `OVERTAKEN` times its own cost has arrived after it, so
    none starves. Items of equal cost keep their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Item]] = []
        self._arrived = self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> Item:
        """The next item, left in the queue."""
        return self._heap[0][2]

    def push(self, item: Item, *, pixels: int) -> None:
        """Adds an item of so many pixels."""
        cost = pixels + OVERHEAD
        self._number += 1
        heapq.heappush(self._heap, (self._arrived + OVERTAKEN * cost, self._number, item))
        self._arrived += cost

    def pop(self) -> Item:
        """Removes and returns the next item."""
        return heapq.heappop(self._heap)[2]

    def remove(self, item: Item) -> bool:
        """Removes this item; False if it is not in the queue."""
        kept = [entry for entry in self._heap if entry[2] is not item]
        removed = len(kept) < len(self._heap)
        heapq.heapify(kept)
        self._heap = kept
        return removed


class Room:
    """Bounds the pixels in memory at a time; an image beyond the bound has the memory to itself."""

    def __init__(self, pixels: int) -> None:
        self._all = self.free = pixels
        self._waiting: ShortestFirst[tuple[int, asyncio.Future[None]]] = ShortestFirst()

    @asynccontextmanager
    async def held(self, pixels: int) -> AsyncIterator[None]:
        """Waits for room, and holds it inside the block."""
        pixels = min(pixels, self._all)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push((pixels, turn), pixels=pixels)
        try:
            self._admit()
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.free += pixels
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            pixels, turn = self._waiting.first
            if not turn.done():
                if pixels > self.free:
                    return
                self.free -= pixels
                turn.set_result(None)
            self._waiting.pop()


async def settled(future: "asyncio.Future[Any]") -> None:
    """Returns when the future is done, even if its caller is cancelled meanwhile."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # retrieved, so that asyncio does not log it
