"""A replica stops when nobody waits, keeps no small image waiting for a large one, and bounds its memory."""

import asyncio
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.data.photograph import decode
from fissura.deploy.model import Classified, SegmentationModel, open_model
from fissura.segmentation.inference import OnWindows, Whole
from fissura.serving import worker as worker_module
from fissura.serving.limits import Limits
from fissura.serving.query import ImageQuery
from fissura.serving.waiting import SMALL_PIXELS
from fissura.serving.worker import NICENESS, Worker, _lower_priority


def png(height: int, width: int, *, shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


SMALL, LARGE = png(20, 30), png(1100, 1000)
assert 20 * 30 <= SMALL_PIXELS < 1100 * 1000


class Network:
    """A model whose large images take until they are let go, or unwanted, tile by tile."""

    task, batches = "classification", False
    manifest = SimpleNamespace(run_id="0" * 16)

    def __init__(self) -> None:
        self.tiles = self.ended = self.large = 0
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, images: Sequence[np.ndarray], *, on_windows: OnWindows) -> list[Classified]:
        height, width = images[0].shape[:2]
        if height * width > SMALL_PIXELS:
            self.large += 1
            self.begun.set()
            try:
                while not self.go.wait(0.001):
                    self.tiles += 1
                    on_windows(self.tiles, 10**6, height, width)
            finally:
                self.ended += 1
        return [Classified("sound", ())]


@contextmanager
def working(network: Any, **limits: Any) -> Iterator[Worker]:
    worker = Worker(network, Limits(**limits))
    try:
        yield worker
    finally:
        worker.close()


def run(main: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main(), 60))


class TestWorkThatNobodyWaitsFor:
    def test_ends_with_the_tile_that_it_is_at_and_not_before_it_is_said_to_have_ended(self) -> None:
        network = Network()

        async def main() -> None:
            task = asyncio.create_task(worker.answer(LARGE, ImageQuery()))
            await asyncio.to_thread(network.begun.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (network.large, network.ended) == (1, 1)

        with working(network) as worker:
            run(main)

    def test_ends_by_itself_when_its_time_is_up(self) -> None:
        network = Network()

        async def main() -> None:
            begin = time.monotonic()
            reply = await worker.answer(LARGE, ImageQuery(), seconds=0.2)
            assert time.monotonic() - begin < 20
            assert reply.problem is not None
            assert (reply.problem.kind, reply.problem.status) == ("too-slow", 504)
            assert network.ended == network.large
            assert (await worker.answer(SMALL, ImageQuery(), seconds=30)).problem is None

        with working(network) as worker:
            run(main)

    def test_that_had_not_begun_never_does(self) -> None:
        network = Network()

        async def main() -> None:
            first = asyncio.create_task(worker.answer(LARGE, ImageQuery()))
            await asyncio.to_thread(network.begun.wait, 30)
            others = [asyncio.create_task(worker.answer(LARGE, ImageQuery())) for _ in range(8)]
            await worker.answer(SMALL, ImageQuery())
            for other in others:
                other.cancel()
            await asyncio.wait(others)
            network.go.set()
            await first

        with working(network) as worker:
            run(main)
        assert network.large == 1

    def test_leaves_room_for_what_comes(self) -> None:
        network = Network()

        async def main() -> None:
            for _ in range(3):
                tasks = [asyncio.create_task(worker.answer(LARGE, ImageQuery())) for _ in range(3)]
                await asyncio.to_thread(network.begun.wait, 30)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            network.go.set()
            assert (await worker.answer(LARGE, ImageQuery(), seconds=30)).problem is None

        with working(network, pixels=1100 * 1000) as worker:
            run(main)


class TestSmallImages:
    def test_are_answered_while_a_large_one_is_at_work(self) -> None:
        network = Network()

        async def main() -> None:
            large = asyncio.create_task(worker.answer(LARGE, ImageQuery()))
            await asyncio.to_thread(network.begun.wait, 30)
            replies = await asyncio.gather(*(worker.answer(SMALL, ImageQuery()) for _ in range(16)))
            assert [reply.problem for reply in replies] == [None] * 16
            assert not large.done()
            network.go.set()
            assert (await large).problem is None

        with working(network) as worker:
            run(main)

    def test_have_threads_that_go_before_those_of_the_large_ones(self) -> None:
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        with ThreadPoolExecutor(1, initializer=_lower_priority, initargs=(NICENESS,)) as pool:
            nice = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
        assert nice == (min(19, usual + NICENESS) if sys.platform == "linux" else usual)
        assert os.getpriority(os.PRIO_PROCESS, 0) == usual

    def test_and_large_ones_beside_them_are_answered_to_the_bit_as_alone(self, segmenter_run: Path) -> None:
        model = open_model(segmenter_run, device=torch.device("cpu"))
        assert isinstance(model, SegmentationModel)
        recipe = model.predictor.recipe.model_copy(update={"inference": Whole(max_pixels=2**17)})
        model = replace(model, predictor=replace(model.predictor, recipe=recipe))
        random = np.random.default_rng(0)
        photographs = []
        for height, width in ((1100, 1000), *((60 + 7 * number, 91) for number in range(12))):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
            photographs.append(file.getvalue())

        async def main() -> None:
            asked = ImageQuery(form="probability")
            replies = await asyncio.gather(*(worker.answer(each, asked) for each in photographs))
            for photograph, reply in zip(photographs, replies, strict=True):
                assert reply.picture is not None
                found = np.asarray(Image.open(io.BytesIO(reply.picture)))
                np.testing.assert_array_equal(found, model.predictor(decode(photograph).pixels))

        with working(model) as worker:
            run(main)


class TestMemory:
    @pytest.mark.parametrize(
        ("photograph", "limits", "most"),
        [(LARGE, {"pixels": 3_400_000}, 3), (SMALL, {"batch_pixels": 600}, 4)],
    )
    def test_holds_so_many_decoded_pixels_at_a_time_however_many_images_come(
        self, monkeypatch: pytest.MonkeyPatch, photograph: bytes, limits: dict[str, int], most: int
    ) -> None:
        decoded = answered = highest = 0

        def counted(data: bytes, *, max_pixels: int) -> Any:
            nonlocal decoded, highest
            decoded += 1
            highest = max(highest, decoded - answered)
            return decode(data, max_pixels=max_pixels)

        monkeypatch.setattr(worker_module, "decode", counted)
        network = Network()

        async def one() -> None:
            nonlocal answered
            assert (await worker.answer(photograph, ImageQuery())).problem is None
            answered += 1

        async def main() -> None:
            tasks = [asyncio.create_task(one()) for _ in range(20)]
            network.go.set()
            await asyncio.gather(*tasks)

        with working(network, **limits) as worker:
            run(main)
        assert (decoded, answered) == (20, 20)
        assert 1 < highest <= most
