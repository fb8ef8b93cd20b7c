"""How images wait: in two lanes, the shortest first, and for room."""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
LaneName = Literal["small", "large"]

SMALL_PIXELS = 2**20
"""What has more goes the lane of the large images."""
OVERHEAD = 2**16
"""The pixels that take as long as what an image costs whatever its size."""
OVERTAKEN = 4


def lane_of(pixels: int) -> LaneName:
    """The lane of an image of so many pixels: the large ones keep no small one waiting."""
    return "small" if pixels <= SMALL_PIXELS else "large"


class ShortestFirst(Generic[Item]):
    """A queue. An item goes before those that cost more, until `OVERTAKEN` times as much as it costs itself
    has come after it: so none waits for ever. Items that cost the same keep their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Item]] = []
        self._came = self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> Item:
        """The next one, which stays."""
        return self._heap[0][2]

    def push(self, item: Item, *, pixels: int) -> None:
        """Takes in an image of so many pixels."""
        cost = pixels + OVERHEAD
        self._number += 1
        heapq.heappush(self._heap, (self._came + OVERTAKEN * cost, self._number, item))
        self._came += cost

    def pop(self) -> Item:
        """Takes the next one out."""
        return heapq.heappop(self._heap)[2]

    def remove(self, item: Item) -> bool:
        """Takes out this one; False where it is no longer here."""
        kept = [entry for entry in self._heap if entry[2] is not item]
        removed = len(kept) < len(self._heap)
        heapq.heapify(kept)
        self._heap = kept
        return removed


class Room:
    """Bounds the pixels that are in memory at a time. What is larger than all of it has it alone."""

    def __init__(self, pixels: int) -> None:
        self._all = self.free = pixels
        self._waiting: ShortestFirst[tuple[int, asyncio.Future[None]]] = ShortestFirst()

    @asynccontextmanager
    async def held(self, pixels: int) -> AsyncIterator[None]:
        """Waits for room; inside the block it is taken."""
        pixels = min(pixels, self._all)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push((pixels, turn), pixels=pixels)
        try:
            self._let_in()
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self.free += pixels
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            pixels, turn = self._waiting.first
            if not turn.done():
                if pixels > self.free:
                    return
                self.free -= pixels
                turn.set_result(None)
            self._waiting.pop()


async def settled(future: "asyncio.Future[Any]") -> None:
    """Returns when the future is done, however often its caller is cancelled meanwhile."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # which nobody asks for any more
