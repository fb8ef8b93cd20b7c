"""Dynamic batches, by pixels: what waits while the network works goes through it together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Item, Result]):
    item: Item
    pixels: int
    future: "asyncio.Future[Result]"


class PixelBatcher(Generic[Item, Result]):
    """Gives items to `run` in the order in which they came, as many at a time as have `most_pixels` together,
    one at least.

    No item waits for others to come: a batch is what came while the batch before it was at work. `run` is
    called in `executor`. Where a batch fails, each of its items is tried alone, so that it fails those alone
    that are to blame. An item whose caller has gone is left out.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], *, most_pixels: int, executor: Executor
    ) -> None:
        self._run, self._most, self._executor = run, most_pixels, executor
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item, *, pixels: int) -> Result:
        """The result for `item`, or what `run` raised for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(_Waiting(item, pixels, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            await self._settle(loop, batch)

    def _next(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        pixels = 0
        while self._waiting and (not batch or pixels + self._waiting[0].pixels <= self._most):
            one = self._waiting.popleft()
            if not one.future.done():
                batch.append(one)
                pixels += one.pixels
        return batch

    async def _settle(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            results = await loop.run_in_executor(self._executor, self._run, [one.item for one in batch])
            paired = list(zip(batch, results, strict=True))
        except Exception as error:
            for one in batch:
                if one.future.done():
                    continue
                if len(batch) > 1:
                    await self._settle(loop, [one])
                else:
                    one.future.set_exception(error)
            return
        for one, result in paired:
            if not one.future.done():
                one.future.set_result(result)
