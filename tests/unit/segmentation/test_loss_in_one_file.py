"""A loss is one file and one line: what is below `class Doubting` could be a file of `fissura.losses`.

It has a head of its own, maps of its own made from the masks, and leaves maps to a later phase, whose loss
reads them. What stands for the line in the union is `ToyPhase`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file
from torch import Tensor, nn

from fissura.core.errors import Interrupted
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets import parse_dataset
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.losses import BCE
from fissura.losses.loss import BatchMaps, Criterion, ImageMaps, LossSpec, Predict
from fissura.metrics import Pixel
from fissura.models import UNet
from fissura.segmentation.recipe import Adam, Phase, Recipe
from fissura.segmentation.run import files_of
from fissura.segmentation.trainer import Trainer
from fissura.training.runtime import LocalRuntime


class Doubting(LossSpec):
    """Cross-entropy, and a head that learns where the mask is crack twice over."""

    kind: Literal["doubting"] = "doubting"

    def criterion(self, feature_channels: int) -> "DoubtingCriterion":
        return DoubtingCriterion(BCE().build(), feature_channels)

    @property
    def leaves(self) -> frozenset[str]:
        return frozenset({"doubt"})

    def maps(self, left: Mapping[str, ImageMaps], masks: ImageMaps) -> dict[str, ImageMaps]:
        return {"twice": {index: 2.0 * mask.astype(np.float32) for index, mask in masks.items()}}


class DoubtingCriterion(Criterion):
    reads = 1

    def __init__(self, loss: nn.Module, feature_channels: int) -> None:
        super().__init__(loss)
        self.doubt_head = nn.Conv2d(feature_channels, 1, 1)

    def readings(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.doubt_head(features).float(),)

    def forward(self, outputs: tuple[Tensor, ...], target: Tensor, valid: Tensor, maps: BatchMaps) -> Tensor:
        logits, doubt = outputs
        cost: Tensor = self.loss(logits, target, valid)
        if not maps:  # validation
            return cost
        assert torch.equal(maps["twice"], 2 * target), "the map does not lie as the mask does"
        return cost + (valid * (doubt - maps["twice"]) ** 2).mean()

    def finish_phase(self, predict: Predict) -> dict[str, ImageMaps]:
        return {"doubt": dict(predict(self.doubt_head))}


class Careful(LossSpec):
    """Cross-entropy where the first phase had no doubt."""

    kind: Literal["careful"] = "careful"

    def criterion(self, feature_channels: int) -> Criterion:
        return CarefulCriterion(BCE().build())

    @property
    def needs(self) -> dict[str, str]:
        return {"doubt": "doubting"}

    def maps(self, left: Mapping[str, ImageMaps], masks: ImageMaps) -> dict[str, ImageMaps]:
        return dict(left)


class CarefulCriterion(Criterion):
    def forward(self, outputs: tuple[Tensor, ...], target: Tensor, valid: Tensor, maps: BatchMaps) -> Tensor:
        weights = 1 - maps["doubt"] if maps else torch.ones_like(target)
        cost: Tensor = self.loss(*outputs, target, valid * (weights > 0.4))
        return cost


class ToyPhase(Phase):
    loss: Doubting | Careful  # type: ignore[assignment]


class ToyRecipe(Recipe):
    phases: tuple[ToyPhase, ...]  # type: ignore[assignment]


def toy(first: LossSpec) -> ToyRecipe:
    return ToyRecipe(
        name="toy",
        data=Pipeline(
            resize=Native(), crop=RandomCrop(size=32, per_image=2), batch_size=2,
            augmentation=Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=0.7),
        ),
        model=UNet(width=4, depth=2),
        epochs=4,
        phases=(
            ToyPhase(name="doubt", loss=first, optimizer=Adam(lr=1e-2), until=0.5),
            ToyPhase(name="care", loss=Careful(), optimizer=Adam(lr=1e-3)),
        ),
        protocols=(Pixel(),),
    )  # fmt: skip


class Stops(LocalRuntime):
    """A runtime that asks to stop after so many steps."""

    def __init__(self, *, after: int) -> None:
        super().__init__(device="cpu", cpus=1)
        self.left = after

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Four training and two validation images of 48x40 pixels."""
    folder = tmp_path_factory.mktemp("toy") / "set"
    write(SyntheticSpec(train=4, val=2, test=1, height=48, width=40), folder)
    return prepare(
        [parse_dataset(f"synthetic:{folder}")], resize=Native(), directory=folder.with_name("cache")
    )


def train(data: PreparedData, run: Path) -> Trainer:
    runtime = LocalRuntime(device="cpu", cpus=1)
    return finish(Trainer(toy(Doubting()), data=data, run=run, runtime=runtime))


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.step()
    return trainer


@pytest.fixture(scope="module")
def whole(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A training that nothing interrupted."""
    return train(data, tmp_path_factory.mktemp("runs") / "whole")


def test_it_trains_through_both_phases(whole: Trainer) -> None:
    assert [record["phase"] for record in whole.history] == ["doubt"] * 2 + ["care"] * 2
    assert np.isfinite([record["train/loss"] for record in whole.history]).all()
    assert whole.history[1]["train/loss"] < whole.history[0]["train/loss"]


def test_what_its_phase_leaves_is_a_file_of_the_run(whole: Trainer, data: PreparedData) -> None:
    left = load_file(whole.run / "doubt.safetensors")
    assert {int(index): maps.shape for index, maps in left.items()} == {
        index: data.mask(index).shape for index in data.indices("train")
    }
    assert "doubt.safetensors" in files_of(whole.recipe)


@pytest.mark.parametrize("after", [3, 13])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    whole: Trainer, data: PreparedData, tmp_path: Path, after: int
) -> None:
    stopping = Trainer(toy(Doubting()), data=data, run=tmp_path / "run", runtime=Stops(after=after))
    with pytest.raises(Interrupted):
        finish(stopping)
    again = train(data, tmp_path / "run")
    assert (again.run / "weights.safetensors").read_bytes() == (
        whole.run / "weights.safetensors"
    ).read_bytes()


def test_what_a_phase_needs_must_have_been_left_before_it() -> None:
    with pytest.raises(
        ValidationError, match="phase doubt needs the doubt that a phase with the loss `doubting`"
    ):
        toy(Careful())
