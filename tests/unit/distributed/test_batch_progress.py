"""A batch tells how far it is within a large photograph, and says nothing while images are finished."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.batches.source import ImageSource
from fissura.deploy.model import SegmentationModel, open_model
from fissura.distributed import batch_progress
from fissura.distributed.batch import Scoring, ScoringWorker
from fissura.distributed.batch_progress import Board, Standstill, watched
from fissura.models import UNet
from fissura.segmentation.inference import Sliding, Whole, probability_map

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("inference", "expected"),
    [
        (Sliding(size=16, stride=8, batch=4), 21),
        (Sliding(size=16, stride=8, batch=64), 21),
        (Whole(max_pixels=1024), 3),
        (Whole(), 1),
    ],
)
def test_inference_counts_every_window_to_the_last(inference, expected):
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    told: list[tuple[int, int, int, int]] = []
    probability_map(
        UNet(width=4, depth=1).build().eval(),
        image,
        inference=inference,
        normalise=lambda pixels: pixels / 255,
        device=CPU,
        on_windows=lambda *windows: told.append(windows),
    )
    assert {windows[1:] for windows in told} == {(expected, 32, 64)}
    done = [windows[0] for windows in told]
    assert done == sorted(set(done))
    assert done[-1] == expected


def test_a_worker_tells_of_large_images_alone_and_wipes_what_it_told(segmenter_run: Path, monkeypatch):
    board = Board()
    model = watched(open_model(segmenter_run, device=CPU), worker=7, tell=board.write)
    assert isinstance(model, SegmentationModel)
    on_windows = model.predictor.on_windows
    assert on_windows is not None
    on_windows(1, 4, 1000, 1000)
    assert board.read() == []
    on_windows(1, 25, 6000, 6000)
    assert board.read() == ["1 of 25 windows of an image of 6000x6000"]
    on_windows(2, 25, 6000, 6000)  # within a second
    assert board.read() == ["1 of 25 windows of an image of 6000x6000"]
    on_windows(25, 25, 6000, 6000)
    assert board.read() == []


def test_a_worker_of_the_job_tells_the_board_while_it_scores(
    segmenter_run: Path, tmp_path: Path, monkeypatch
):
    class Remote:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def remote(self, worker: int, line: str) -> None:
            self.lines.append(line)

    class Handle:
        write = Remote()

    monkeypatch.setattr(batch_progress, "LARGE_PIXELS", 100)
    Image.fromarray(np.full((40, 56, 3), 200, np.uint8)).save(tmp_path / "wall.png")
    plain = Scoring(run=segmenter_run).plain()
    worker = ScoringWorker(ImageSource.open(str(tmp_path)), plain, Handle())
    rows = worker({"name": np.array(["wall.png"])})
    assert "result" in json.loads(rows["document"][0])
    assert Handle.write.lines[-1] == ""


def test_what_stands_still_is_told_of_again_and_again(monkeypatch):
    clock, said = [100.0], []
    monkeypatch.setattr(batch_progress.time, "monotonic", lambda: clock[0])
    standstill = Standstill(said.append, 3)

    def look(after: float, done: int) -> None:
        clock[0] += after
        standstill.look(done, lambda: ["4 of 25 windows of an image of 6000x6000"])

    look(1, 0)
    look(14, 0)
    assert said == []
    look(1, 0)
    assert said == ["0:16 · 0 of 3 images · 4 of 25 windows of an image of 6000x6000"]
    look(14, 0)
    look(10, 1)  # an image was finished
    look(10, 1)
    assert len(said) == 1
    look(5, 1)
    assert said[1].startswith("0:55 · 1 of 3 images · ")
