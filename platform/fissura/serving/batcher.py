"""Dynamic batches, by pixels: what waits while the network works goes through it together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from fissura.serving.waiting import ShortestFirst, settled

Item = TypeVar("Item")
Result = TypeVar("Result")
Wanted = Callable[[], bool]
"""Whether anybody waits for what is worked on; may be asked in any thread."""


@dataclass(frozen=True, eq=False)
class _WaitingItem(Generic[Item, Result]):
    item: Item
    pixels: int
    future: "asyncio.Future[Result]"
    let_go: "asyncio.Future[None]"  # when it is worked on no longer


class PixelBatcher(Generic[Item, Result]):
    """Gives items to `run`, the shortest first (see `ShortestFirst`), as many at a time as have `most_pixels`
    together, one at least.

    No item waits for others to come: a batch is what came while the batch before it was at work. `run` is
    called in `executor`, and may end with any exception when it is told that nobody waits any more. Where a
    batch fails, each of its items is tried alone, so that it fails those alone that are to blame.
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
        """The result for `item`, or what `run` raised for it. Its caller may be cancelled; then it ends when
        the item is worked on no longer."""
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
                await settled(waiting.let_go)
            raise

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            await self._settle(loop, batch)
            for waiting in batch:
                waiting.let_go.set_result(None)

    def _next(self) -> list[_WaitingItem[Item, Result]]:
        batch: list[_WaitingItem[Item, Result]] = []
        pixels = 0
        while self._waiting and (not batch or pixels + self._waiting.first.pixels <= self._most):
            waiting = self._waiting.pop()
            batch.append(waiting)
            pixels += waiting.pixels
        return batch

    async def _settle(self, loop: asyncio.AbstractEventLoop, batch: list[_WaitingItem[Item, Result]]) -> None:
        # those whose callers went while it was waited for
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
