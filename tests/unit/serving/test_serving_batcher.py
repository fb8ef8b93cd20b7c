"""Items that come while others are worked on go together, in order, by pixels; nobody pays for another."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fissura.serving.batcher import PixelBatcher


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def same(items: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
    return list(items)


class Network:
    """Notes each batch; waits in the first until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.busy, self.go = threading.Event(), threading.Event()
        self.bad: set[int] = set()

    def __call__(self, items: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
        self.batches.append(list(items))
        self.busy.set()
        assert self.go.wait(30)
        if wrong := self.bad & set(items):
            raise ValueError(f"{min(wrong)} is bad")
        return [item * 10 for item in items]


def together(
    executor: ThreadPoolExecutor,
    network: Network,
    items: Sequence[tuple[int, int]],
    *,
    most: int,
    meanwhile: Callable[[list["asyncio.Task[int]"]], object] = lambda _: None,
) -> list[int | BaseException]:
    """The results of (item, pixels) that come in this order, the first of which is at work when the others
    come; `meanwhile` is called before it ends."""

    async def main() -> list[int | BaseException]:
        batcher: PixelBatcher[int, int] = PixelBatcher(network, most_pixels=most, executor=executor)
        tasks = []
        for item, pixels in items:
            tasks.append(asyncio.create_task(batcher.submit(item, pixels=pixels)))
            await asyncio.sleep(0)
            if len(tasks) == 1:
                await asyncio.to_thread(network.busy.wait, 30)
        meanwhile(tasks)
        network.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


class TestABatch:
    def test_is_what_came_while_the_one_before_was_at_work(self, executor: ThreadPoolExecutor) -> None:
        network = Network()
        assert together(executor, network, [(1, 5), (2, 5), (3, 5)], most=100) == [10, 20, 30]
        assert network.batches == [[1], [2, 3]]

    def test_of_a_first_item_waits_for_no_other(self, executor: ThreadPoolExecutor) -> None:
        network = Network()
        assert together(executor, network, [(1, 1)], most=10**9) == [10]
        assert network.batches == [[1]]

    @settings(max_examples=25)
    @given(pixels=st.lists(st.integers(1, 12), min_size=1, max_size=20), most=st.integers(1, 20))
    def test_keeps_the_order_and_the_pixels_and_is_as_full_as_can_be(
        self, pixels: list[int], most: int
    ) -> None:
        network = Network()
        with ThreadPoolExecutor(1) as executor:
            results = together(executor, network, list(enumerate(pixels)), most=most)
        assert results == [10 * place for place in range(len(pixels))]
        assert [item for batch in network.batches for item in batch] == list(range(len(pixels)))
        for batch in network.batches:
            assert len(batch) == 1 or sum(pixels[item] for item in batch) <= most
        for batch, following in zip(network.batches[1:], network.batches[2:], strict=False):
            assert sum(pixels[item] for item in batch) + pixels[following[0]] > most

    def test_begins_with_the_shortest(self, executor: ThreadPoolExecutor) -> None:
        network, million = Network(), 10**6
        items = [(1, million), (2, 9 * million), (3, million), (4, million)]
        assert together(executor, network, items, most=1) == [10, 20, 30, 40]
        assert network.batches == [[1], [3], [4], [2]]

    def test_is_told_when_nobody_waits_for_it_any_more_and_ends_before_its_callers_do(
        self, executor: ThreadPoolExecutor
    ) -> None:
        ended = threading.Event()

        def run(items: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
            begun.set()
            while wanted():
                told.append(True)
                time.sleep(0.001)
            ended.set()
            raise ValueError("unwanted")

        async def main() -> None:
            batcher: PixelBatcher[int, int] = PixelBatcher(run, most_pixels=9, executor=executor)
            tasks = [asyncio.create_task(batcher.submit(item, pixels=1)) for item in (1, 2)]
            await asyncio.to_thread(begun.wait, 30)
            tasks[0].cancel()
            await asyncio.sleep(0.05)
            assert not ended.is_set(), "somebody waits"
            tasks[1].cancel()
            await asyncio.wait(tasks)
            assert ended.is_set()
            assert [task.cancelled() for task in tasks] == [True, True]

        begun, told = threading.Event(), list[bool]()
        asyncio.run(asyncio.wait_for(main(), 30))
        assert told

    def test_leaves_out_whoever_has_gone(self, executor: ThreadPoolExecutor) -> None:
        network = Network()
        items = [(1, 5), (2, 5), (3, 5)]
        results = together(executor, network, items, most=100, meanwhile=lambda tasks: tasks[1].cancel())
        assert network.batches == [[1], [3]]
        assert (results[0], type(results[1]), results[2]) == (10, asyncio.CancelledError, 30)

    def test_whose_only_caller_goes_while_it_is_at_work_hurts_no_other(
        self, executor: ThreadPoolExecutor
    ) -> None:
        network = Network()
        results = together(
            executor, network, [(1, 5), (2, 5)], most=100, meanwhile=lambda tasks: tasks[0].cancel()
        )
        assert (type(results[0]), results[1]) == (asyncio.CancelledError, 20)


class TestAFailure:
    def test_is_that_of_the_bad_item_alone(self, executor: ThreadPoolExecutor) -> None:
        network = Network()
        network.bad = {3}
        results = together(executor, network, [(item, 5) for item in range(1, 6)], most=100)
        assert [results[0], *results[1:2], *results[3:]] == [10, 20, 40, 50]
        assert str(results[2]) == "3 is bad"
        assert network.batches == [[1], [2, 3, 4, 5], [2], [3], [4], [5]]

    def test_of_a_batch_leaves_out_whoever_goes_while_its_items_are_tried_alone(
        self, executor: ThreadPoolExecutor
    ) -> None:
        tried: list[list[int]] = []

        async def main() -> list[int | BaseException]:
            tasks: list[asyncio.Task[int]] = []
            loop = asyncio.get_running_loop()
            gone = threading.Event()

            def go() -> None:
                tasks[2].cancel()
                gone.set()

            def run(items: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
                tried.append(list(items))
                if len(items) > 1:
                    raise ValueError("too many")
                if items == [1]:
                    loop.call_soon_threadsafe(go)
                    assert gone.wait(30)
                return [item * 10 for item in items]

            batcher: PixelBatcher[int, int] = PixelBatcher(run, most_pixels=100, executor=executor)
            tasks += [asyncio.create_task(batcher.submit(item, pixels=1)) for item in range(4)]
            return await asyncio.gather(*tasks, return_exceptions=True)

        results = asyncio.run(main())
        assert (results[0], results[1], type(results[2]), results[3]) == (0, 10, asyncio.CancelledError, 30)
        assert tried == [[0, 1, 2, 3], [0], [1], [3]]

    def test_to_give_a_result_for_each_item_is_a_failure_and_no_silence(
        self, executor: ThreadPoolExecutor
    ) -> None:
        async def main() -> list[int | BaseException]:
            batcher: PixelBatcher[int, int] = PixelBatcher(lambda *_: [], most_pixels=9, executor=executor)
            asked = [batcher.submit(item, pixels=1) for item in (1, 2)]
            return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)

        assert [type(result) for result in asyncio.run(main())] == [ValueError, ValueError]

    def test_of_one_batch_leaves_the_next_to_be_answered(self, executor: ThreadPoolExecutor) -> None:
        network = Network()
        network.bad = {1}
        results = together(executor, network, [(1, 5), (2, 5)], most=100)
        assert (str(results[0]), results[1]) == ("1 is bad", 20)

    def test_of_the_executor_is_told_to_each(self) -> None:
        async def main() -> list[int | BaseException]:
            pool = ThreadPoolExecutor(1)
            pool.shutdown()
            batcher: PixelBatcher[int, int] = PixelBatcher(same, most_pixels=9, executor=pool)
            asked = [batcher.submit(item, pixels=1) for item in (1, 2)]
            return await asyncio.gather(*asked, return_exceptions=True)

        assert [type(result) for result in asyncio.run(main())] == [RuntimeError, RuntimeError]


def test_one_batcher_serves_one_event_loop_after_the_other(executor: ThreadPoolExecutor) -> None:
    batcher: PixelBatcher[int, int] = PixelBatcher(same, most_pixels=9, executor=executor)
    for item in range(3):
        assert asyncio.run(batcher.submit(item, pixels=1)) == item
