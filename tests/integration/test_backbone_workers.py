"""A backbone over two workers of Ray Train: the numbers of one worker, deaths, distillation."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fissura.classification.backbone import (
    Backbone,
    BackboneTraining,
    Distillation,
    TrainingImages,
    read_backbone,
    train_backbone,
)
from fissura.core.errors import ResourceError
from fissura.distributed.training.backbone import train_backbone_on_workers
from fissura.training.runtime import LocalRuntime

# Ray warns in this process of options that it sets itself
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]


def picture(index: int) -> np.ndarray:
    """Grey noise; an odd index has a dark crack across it."""
    image = np.random.default_rng(index).integers(130, 200, (32, 32, 3)).astype(np.uint8)
    if index % 2:
        image[14:18] //= 4
    return image


IMAGES = TrainingImages(
    picture, [index % 2 for index in range(24)], ("none", "crack"), range(16), range(16, 24), "0" * 16
)
# without batch normalisation, whose statistics are of a worker's own share: the mean gradient is the batch's
PLAIN = Backbone(kind="vgg16", weights="trained", input_size=32)
SHORT = BackboneTraining(
    epochs=2,
    batch_size=8,
    lr=1e-4,
    distillation=Distillation(teacher="vgg16", discriminator_width=16),
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by one worker."""
    directory = tmp_path_factory.mktemp("alone") / "run"
    runtime = LocalRuntime(device="cpu", cpus=1)
    train_backbone(PLAIN, training=SHORT, images=IMAGES, directory=directory, runtime=runtime)
    return directory


def test_two_workers_agree_with_one(alone: Path, tmp_path: Path) -> None:
    def shared() -> dict[str, Any]:
        return train_backbone_on_workers(
            PLAIN, training=SHORT, images=IMAGES, directory=tmp_path / "run", workers=2, cpus_per_worker=1
        )

    one, two = read_backbone(alone), shared()
    assert (one["workers"], two["workers"]) == (1, 2)
    for expected, found in zip(one["history"], two["history"], strict=True):
        for name in ("train/loss", "val/loss"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3), name
        assert found["val/f1"] == expected["val/f1"]
    weights = [load_file(path / "weights.safetensors") for path in (alone, tmp_path / "run")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-2, atol=1e-4)
    assert shared() == two, "a finished training is only read"


def test_two_workers_distil_together(alone: Path, tmp_path: Path) -> None:
    """Each asks the teacher for its share of the images; the student has batch normalisation."""
    directory = tmp_path / "run"
    result = train_backbone_on_workers(
        Backbone(kind="mobilenet_v3", weights="distilled", input_size=32),
        training=SHORT.model_copy(update={"lr": 1e-3}),
        images=IMAGES,
        directory=directory,
        workers=2,
        teacher=alone / "weights.safetensors",
        cpus_per_worker=1,
    )
    assert [record["epoch"] for record in result["history"]] == [1, 2]
    assert {"train/adversarial", "train/told_apart", "val/f1"} <= result["history"][-1].keys()
    Backbone(kind="mobilenet_v3", input_size=32).build(weights=directory / "weights.safetensors")
    assert not list(directory.glob("teacher-*"))
    assert not list(directory.glob("*.npy"))


def test_more_workers_than_a_batch_holds_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="--workers 5: batch normalisation needs two images a worker"):
        train_backbone_on_workers(PLAIN, training=SHORT, images=IMAGES, directory=tmp_path / "run", workers=5)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import test_backbone_workers as this
spec = this.PLAIN.model_copy(update=dict(kind="mobilenet_v3"))
def on_epoch(record):
    if record["epoch"] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
this.train_backbone(spec, training=this.SHORT, images=this.IMAGES, directory=Path(sys.argv[1]),
                    runtime=this.LocalRuntime(device="cpu", cpus=1), on_epoch=on_epoch)
"""


def test_a_killed_training_loses_no_epoch_that_was_done(tmp_path: Path) -> None:
    code = textwrap.dedent(KILLED.format(folder=str(Path(__file__).parent)))

    def train(name: str, dies_after: int) -> int:
        command = [sys.executable, "-c", code, str(tmp_path / name), str(dies_after)]
        return subprocess.run(
            command, timeout=250, check=False, env=os.environ | {"PYTHONWARNINGS": ""}
        ).returncode

    def history(name: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = read_backbone(tmp_path / name)["history"]
        return [{key: record[key] for key in ("epoch", "train/loss", "val/loss")} for record in records]

    assert train("killed", 1) == -signal.SIGKILL
    assert (tmp_path / "killed" / "state.safetensors").is_file()
    assert train("killed", 0) == 0
    assert train("whole", 0) == 0
    assert history("killed") == history("whole")
    killed, whole = (load_file(tmp_path / name / "weights.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    assert json.loads((tmp_path / "whole" / "backbone.json").read_text("utf-8"))["workers"] == 1
