"""Every training over several workers is launched alike: workers fit the nodes, and resume where they may."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.train import WorkerGroupError

from fissura.classification.backbone import Backbone, BackboneTraining, TrainingImages
from fissura.core.errors import FissuraError, Interrupted, ResourceError
from fissura.core.progress import silent
from fissura.distributed.cluster import Resources
from fissura.distributed.stopping import StopFile
from fissura.distributed.training import launch
from fissura.distributed.training.backbone import train_backbone_on_workers
from fissura.training.checkpoint import Progress

TWO_NODES_OF_THREE = Resources(cpus=6, gpus=0, nodes=2, node_cpus=3, node_gpus=0)
DEATH = WorkerGroupError("a worker died", {0: RuntimeError("its process ended")})


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connected(address: str | None, *, say: Any) -> Iterator[Resources]:
        yield TWO_NODES_OF_THREE

    monkeypatch.setattr(launch, "connected", connected)


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, *fits: Callable[[], None]) -> int:
    """Launches a training whose attempts do what `fits` do, one after the other; returns how many began."""
    left = list(fits)

    class Trainer:
        train_run_context = SimpleNamespace(run_id="1")

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def fit(self) -> None:
            left.pop(0)()

    monkeypatch.setattr(launch, "TorchTrainer", Trainer)
    launch.train_by_workers(
        lambda _: None,
        config=lambda _: {},
        folder=folder,
        result="result.json",
        workers=2,
        cpus_per_worker=1,
        address=None,
        say=silent,
    )
    assert not (folder / launch.RESERVATION).exists()
    return len(fits) - len(left)


def test_the_workers_of_a_backbone_each_fit_a_node(tmp_path: Path) -> None:
    images = TrainingImages(
        lambda index: np.full((32, 32, 3), 9 * index, np.uint8),
        [index % 2 for index in range(12)],
        ("none", "crack"),
        range(8),
        range(8, 12),
        "0" * 16,
    )
    with pytest.raises(ResourceError, match=r"--workers 3: .* the cluster's nodes have room for 2"):
        train_backbone_on_workers(
            Backbone(kind="vgg16", weights="trained", input_size=32),
            training=BackboneTraining(batch_size=8),
            images=images,
            directory=tmp_path / "run",
            workers=3,
            cpus_per_worker=2,
        )


def test_workers_that_die_resume_as_long_as_they_finish_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = 0
    monkeypatch.setattr(launch, "read_progress", lambda _: (Progress(epoch=epochs), []))

    def dies_after_an_epoch() -> None:
        nonlocal epochs
        epochs += 1
        raise DEATH

    def dies() -> None:
        raise DEATH

    def finishes() -> None:
        (tmp_path / "result.json").touch()

    assert train(tmp_path, monkeypatch, dies_after_an_epoch, dies_after_an_epoch, finishes) == 3
    with pytest.raises(FissuraError, match="the training failed"):
        train(tmp_path, monkeypatch, dies_after_an_epoch, dies, finishes)


def test_a_stop_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops() -> None:
        StopFile(tmp_path).request()

    with pytest.raises(Interrupted, match="run the same command to go on"):
        train(tmp_path, monkeypatch, stops)
