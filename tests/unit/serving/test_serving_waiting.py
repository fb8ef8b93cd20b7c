"""Small images do not wait behind large ones, none waits for ever, and pixels in memory are bounded."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fissura.serving.waiting import OVERHEAD, OVERTAKEN, SMALL_PIXELS, Room, ShortestFirst, lane_of, settled

MEGAPIXEL = 10**6


def test_photographs_of_cameras_are_large_and_tiles_are_small() -> None:
    assert [lane_of(pixels) for pixels in (320 * 480, SMALL_PIXELS)] == ["small"] * 2
    assert [lane_of(pixels) for pixels in (SMALL_PIXELS + 1, 7360 * 4912)] == ["large"] * 2


class TestAQueue:
    def test_keeps_the_order_of_images_of_one_size(self) -> None:
        queue: ShortestFirst[int] = ShortestFirst()
        for number in range(20):
            queue.push(number, pixels=MEGAPIXEL)
        assert [queue.pop() for _ in range(20)] == list(range(20))

    def test_lets_small_ones_go_before_a_large_one_that_came_first(self) -> None:
        queue: ShortestFirst[str] = ShortestFirst()
        queue.push("large", pixels=36 * MEGAPIXEL)
        for _ in range(16):
            queue.push("small", pixels=MEGAPIXEL)
        assert [queue.pop() for _ in range(17)] == ["small"] * 16 + ["large"]

    @given(pixels=st.lists(st.integers(1, 40 * MEGAPIXEL), max_size=60), taken=st.integers(0, 60))
    def test_lets_none_be_overtaken_by_more_than_some_times_its_own_cost(
        self, pixels: list[int], taken: int
    ) -> None:
        queue: ShortestFirst[int] = ShortestFirst()
        costs = [size + OVERHEAD for size in pixels]
        for number, size in enumerate(pixels):
            queue.push(number, pixels=size)
        order = [queue.pop() for _ in pixels]
        assert sorted(order) == list(range(len(pixels)))
        for place, number in enumerate(order):
            overtakers = [other for other in order[:place] if other > number]
            assert all(costs[other] < costs[number] for other in overtakers)
            # the last one came when less than that had come; itself it may be as large as the overtaken
            assert sum(costs[other] for other in overtakers[:-1]) <= OVERTAKEN * costs[number]

    def test_gives_back_what_is_taken_out(self) -> None:
        queue: ShortestFirst[str] = ShortestFirst()
        items = ["a", "b", "c"]
        for item in items:
            queue.push(item, pixels=1)
        assert (queue.remove("b"), queue.remove("b"), len(queue)) == (True, False, 2)
        assert [queue.pop(), queue.pop()] == ["a", "c"]


class TestRoom:
    @given(
        pixels=st.lists(st.integers(1, 150), min_size=1, max_size=30),
        cancelled=st.sets(st.integers(0, 29)),
    )
    def test_is_never_overdrawn_and_free_again_at_the_end_whoever_goes(
        self, pixels: list[int], cancelled: set[int]
    ) -> None:
        room, inside, served = Room(100), 0, set[int]()

        async def use(number: int, size: int) -> None:
            nonlocal inside
            async with room.held(size):
                inside += min(size, 100)
                assert inside <= 100
                try:
                    await asyncio.sleep(0)
                    served.add(number)
                finally:
                    inside -= min(size, 100)

        async def main() -> None:
            tasks = [asyncio.create_task(use(*each)) for each in enumerate(pixels)]
            for number in sorted(cancelled & set(range(len(tasks)))):
                await asyncio.sleep(0)
                tasks[number].cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

        asyncio.run(asyncio.wait_for(main(), 30))
        assert (inside, room.free) == (0, 100)
        assert served >= set(range(len(pixels))) - cancelled

    def test_is_given_to_whom_it_suffices_for_when_the_one_before_gives_up(self) -> None:
        async def main() -> None:
            room = Room(100)

            async def hold(size: int, until: asyncio.Event) -> None:
                async with room.held(size):
                    await until.wait()

            end = asyncio.Event()
            first, large = (asyncio.create_task(hold(size, end)) for size in (60, 90))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            small = asyncio.create_task(hold(40, end))
            await asyncio.sleep(0)
            assert room.free == 40
            large.cancel()
            await asyncio.wait([large])
            assert room.free == 0
            end.set()
            await asyncio.gather(first, small)

        asyncio.run(asyncio.wait_for(main(), 30))


def test_what_is_waited_for_to_settle_is_waited_for_however_often_one_is_cancelled() -> None:
    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(settled(future))
        for _ in range(5):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        future.set_exception(ValueError("which nobody asks for"))
        await task

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("pixels", [0, 10**12])
def test_an_image_larger_than_all_room_has_it_alone(pixels: int) -> None:
    async def main() -> None:
        room = Room(100)
        async with room.held(pixels):
            assert room.free == (100 if pixels == 0 else 0)

    asyncio.run(asyncio.wait_for(main(), 30))
