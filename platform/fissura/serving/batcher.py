"""Dynamic batches, by pixels: items that arrive while the network is busy form the next batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from fissura.serving.waiting import ShortestFirst, settled

Item = TypeVar("Item")
Result = TypeVar("Result")
Wanted = Callable[[], bool]
"""Whether a caller still waits for the batch; callable from any thread."""


@dataclass(frozen=True, eq=False)
class _WaitingItem(Generic[Item, Result]):
    item: Item
    pixels: int
    future: "asyncio.Future[Result]"
    released: "asyncio.Future[None]"  # done once the executor no longer works on the item


class PixelBatcher(Generic[Item, Result]):
    """Passes items to `run` in batches of at most `most_pixels` (at least one item), the shortest first (see
    `ShortestFirst`).

    No item waits for a batch to fill: a batch holds what arrived while the previous one ran. `run` is called
    in `executor`, and may raise any exception once no caller waits. If a batch fails, its items run one by
    one, so that only the faulty ones fail.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], Wanted], Sequence[Result]],
        *,
        most_pixels: int,
        executor: Executor,
    ) -> None:
        self._run, self._most, self._executor = run, most_pixels, executor
        self._waiting: ShortestFirst[_WaitingItem[Item, Result]] = ShortestFirst()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item, *, pixels: int) -> Result:
        """The result for `item`, or the exception of `run`. When cancelled, it returns once the executor no
        longer works on the item."""
        loop = asyncio.get_running_loop()
        waiting: _WaitingItem[Item, Result] = _WaitingItem(
            item, pixels, loop.create_future(), loop.create_future()
        )
        self._waiting.push(waiting, pixels=pixels)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if not self._waiting.remove(waiting):
                await settled(waiting.released)
            raise

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            await self._settle(loop, batch)
            for waiting in batch:
                waiting.released.set_result(None)

    def _next(self) -> list[_WaitingItem[Item, Result]]:
        batch: list[_WaitingItem[Item, Result]] = []
        pixels = 0
        while self._waiting and (not batch or pixels + self._waiting.first.pixels <= self._most):
            waiting = self._waiting.pop()
            batch.append(waiting)
            pixels += waiting.pixels
        return batch

    async def _settle(self, loop: asyncio.AbstractEventLoop, batch: list[_WaitingItem[Item, Result]]) -> None:
        # drops items whose callers were cancelled in the meantime
        batch = [waiting for waiting in batch if not waiting.future.done()]
        if not batch:
            return

        def wanted() -> bool:
            return not all(waiting.future.done() for waiting in batch)

        try:
            items = [waiting.item for waiting in batch]
            results = await loop.run_in_executor(self._executor, self._run, items, wanted)
            paired = list(zip(batch, results, strict=True))
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:
                    await self._settle(loop, [waiting])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for waiting, result in paired:
            if not waiting.future.done():
                waiting.future.set_result(result)
