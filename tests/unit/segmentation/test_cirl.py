"""CIRL's two phases: a std head that comes and goes, a variance map an image kept at the switch, any base."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save_file as save_maps

from fissura.core.errors import DataError, Interrupted
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets import parse_dataset
from fissura.data.pipeline import Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.losses import BCE, AmbiguityAware, Clustering, marginal_region
from fissura.losses.ambiguity import AmbiguityCriterion
from fissura.losses.clustering import AMBIGUOUS, ClusteringCriterion
from fissura.metrics import Pixel
from fissura.models import (
    DRU,
    JTFN,
    AnyModel,
    AttentionResUNet,
    BackboneUNet,
    CrackFormer,
    DeepCrackZou,
    DeepLabV3,
    HrSegNet,
    UNet,
)
from fissura.recipes import cirl
from fissura.segmentation.kept_maps import read_maps
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import Adam, Phase, Recipe
from fissura.segmentation.trainer import Trainer
from fissura.spaces.fields import override
from fissura.training.runtime import LocalRuntime

BASES: tuple[AnyModel, ...] = (
    UNet(width=4, depth=2),
    AttentionResUNet(width=4),
    BackboneUNet(encoder="mobilenet_v2", weights="none", decoder_channels=(16, 8, 8, 8)),
    DeepLabV3(backbone="mobilenet_v3_large"),
    JTFN(width=4, steps=2),
    DeepCrackZou(width=2),
    HrSegNet(width=4),
    DRU(width=4, steps=2),
    CrackFormer(width=16),
)
VARIANCE = "variance.safetensors"
TIMES = {"seconds", "images_per_second", "wait_share", "latency_ms"}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Four training and two validation images of 48x40 pixels."""
    folder = tmp_path_factory.mktemp("cirl") / "set"
    write(SyntheticSpec(train=4, val=2, test=1, height=48, width=40), folder)
    return prepare(
        [parse_dataset(f"synthetic:{folder}")], resize=Native(), directory=folder.with_name("cache")
    )


def tiny(**values: Any) -> Recipe:
    """Two epochs of each phase; gamma so low that nearly every marginal pixel is ambiguous."""
    base = Recipe(
        name="tiny",
        data=Pipeline(
            resize=Native(), crop=RandomCrop(size=32, per_image=2), batch_size=2, normalisation="unit"
        ),
        model=UNet(width=4, depth=2),
        epochs=4,
        phases=(
            Phase(name="ambiguity", loss=AmbiguityAware(), optimizer=Adam(lr=1e-3), until=0.5),
            Phase(name="clustering", loss=Clustering(gamma=0.05, k=5), optimizer=Adam(lr=1e-3)),
        ),
        protocols=(Pixel(),),
    )
    return override(base, values)


class Stops(LocalRuntime):
    """A runtime that asks to stop after so many steps."""

    def __init__(self, *, after: int) -> None:
        super().__init__(device="cpu", cpus=1)
        self.left = after

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left == 0


def begin(recipe: Recipe, data: PreparedData, run: Path) -> Trainer:
    return Trainer(recipe, data=data, run=run, runtime=LocalRuntime(device="cpu", cpus=1))


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.step()
    return trainer


def history(trainer: Trainer) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in trainer.history]


@pytest.fixture(scope="session")
def whole(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A training of `tiny` that nothing interrupted."""
    return finish(begin(tiny(), data, tmp_path_factory.mktemp("runs") / "whole"))


class TestTheTwoPhases:
    def test_follow_each_other(self, whole: Trainer) -> None:
        assert [record["phase"] for record in whole.history] == ["ambiguity"] * 2 + ["clustering"] * 2

    def test_leave_a_model_that_costs_nothing_extra(self, whole: Trainer) -> None:
        kept = load_file(whole.run / "weights.safetensors")
        assert kept.keys() == tiny().model.build().state_dict().keys()
        assert whole.kept["parameters"] == sum(p.numel() for p in tiny().model.build().parameters())

    def test_keep_one_variance_map_a_training_image(self, whole: Trainer, data: PreparedData) -> None:
        maps = load_file(whole.run / VARIANCE)
        assert set(maps) == {str(index) for index in data.indices("train")}
        for index in data.indices("train"):
            assert maps[str(index)].shape == data.mask(index).shape
            assert (maps[str(index)] > 0).all()
            assert (maps[str(index)] < 1).all()

    @pytest.mark.parametrize("model", BASES, ids=lambda model: model.kind)
    def test_train_any_base(self, model: AnyModel, data: PreparedData, tmp_path: Path) -> None:
        recipe = tiny(epochs=2).model_copy(update={"model": model})
        trainer = finish(begin(recipe, data, tmp_path / "run"))
        assert [record["phase"] for record in trainer.history] == ["ambiguity", "clustering"]
        assert np.isfinite([record["train/loss"] for record in trainer.history]).all()
        assert load_file(trainer.run / "weights.safetensors").keys() == model.build().state_dict().keys()

    @pytest.mark.parametrize(
        "setting",
        [
            {"phases.ambiguity.loss.distance": "kl"},
            {"phases.clustering.loss.term": "exact"},
            {"phases.clustering.loss.term": "nnclr"},
            {"phases.ambiguity.until": 1.0},
        ],
        ids=str,
    )
    def test_have_the_paper_s_ablations_as_settings(
        self, setting: dict[str, Any], whole: Trainer, data: PreparedData, tmp_path: Path
    ) -> None:
        trainer = finish(begin(tiny(**setting), data, tmp_path / "run"))
        assert len(trainer.history) == 4
        assert history(trainer) != history(whole)
        override(cirl.recipe(), setting)

    def test_without_phase_one_are_refused(self) -> None:
        with pytest.raises(
            ValidationError,
            match=r"phase clustering needs the variance.* get 0 and 1; set `epochs` to 2",
        ):
            Recipe.model_validate({**tiny().model_dump(), "epochs": 1})
        phases = (Phase(name="ambiguity", loss=BCE(), until=0.5), tiny().phases[1])
        with pytest.raises(ValidationError, match="needs the variance"):
            Recipe.model_validate({**tiny().model_dump(), "phases": phases})


class TestTheSwitch:
    def test_keeps_what_the_std_head_says_of_the_whole_image(
        self, data: PreparedData, tmp_path: Path
    ) -> None:
        trainer = begin(tiny(), data, tmp_path / "run")
        for _ in range(2):
            objective = trainer._active.objective
            trainer.step()
        assert isinstance(objective.criterion, AmbiguityCriterion)
        assert isinstance(trainer._active.objective.criterion, ClusteringCriterion)
        objective.eval()
        for index in data.indices("train"):
            image = torch.from_numpy(np.array(data.image(index))).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                log_variance = objective.criterion.std_head(objective.model.features(image))[0, 0].numpy()
            kept = load_file(trainer.run / VARIANCE)[str(index)]
            assert kept == pytest.approx(np.exp(log_variance) / (1 + np.exp(log_variance)), abs=1e-3)

    @pytest.mark.parametrize("gamma", [0.05, 0.4, 2.0])
    def test_marks_the_uncertain_among_the_marginal(
        self, data: PreparedData, tmp_path: Path, gamma: float
    ) -> None:
        rng = np.random.default_rng(0)
        variance = {i: rng.uniform(0.01, 3, data.mask(i).shape) for i in data.indices("train")}
        kept = {str(i): (v / (1 + v)).astype(np.float16) for i, v in variance.items()}
        save_maps(kept, tmp_path / VARIANCE)
        left = {"variance": read_maps(tmp_path, "variance", data=data)}
        masks = {i: data.mask(i) for i in variance}
        regions = Clustering(gamma=gamma).maps(left, masks)[AMBIGUOUS]
        assert regions.keys() == variance.keys()
        for index, region in regions.items():
            mask = torch.from_numpy(np.array(data.mask(index)))[None, None]
            marginal = marginal_region(mask)[0, 0].numpy()
            exact = (variance[index] > gamma) & (marginal == 1)
            close = np.abs(variance[index] - gamma) < 0.01 * gamma + 0.005
            assert np.array_equal(region[~close], exact[~close])
            assert 0 < region.sum() < marginal.sum()

    def test_without_its_file_says_what_to_do(self, data: PreparedData, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="train the run again"):
            read_maps(tmp_path, "variance", data=data)
        save_maps({"0": np.zeros((2, 2), np.float16)}, tmp_path / VARIANCE)
        with pytest.raises(DataError, match="holds no variance of training image"):
            read_maps(tmp_path, "variance", data=data)

    @pytest.mark.parametrize("after", [3, 9, 13])
    def test_is_not_repeated_by_a_training_that_goes_on(
        self, whole: Trainer, data: PreparedData, tmp_path: Path, after: int
    ) -> None:
        """Interrupted in Phase I, in the first epoch of Phase II, and in its second (4 steps an epoch)."""
        stopping = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=Stops(after=after))
        with pytest.raises(Interrupted):
            finish(stopping)
        again = finish(begin(tiny(), data, tmp_path / "run"))
        assert history(again) == history(whole)
        for name in ("weights.safetensors", VARIANCE):
            assert (again.run / name).read_bytes() == (whole.run / name).read_bytes()


def test_the_std_head_is_trained_with_the_network() -> None:
    objective = PhaseObjective(UNet(width=4, depth=2).build(), AmbiguityAware())
    maps = (torch.rand(2, 1, 16, 16) < 0.2).float()
    loss, _ = objective(torch.rand(2, 3, 16, 16), maps, torch.ones_like(maps), {})
    loss.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    assert "criterion.std_head.weight" in objective.state_dict()


def test_a_state_whose_std_head_lies_beside_the_network_is_gone_on_with(
    whole: Trainer, data: PreparedData, tmp_path: Path
) -> None:
    """As versions wrote it in which the losses had no parts of their own."""
    stopping = Trainer(tiny(), data=data, run=tmp_path / "run", runtime=Stops(after=6))
    with pytest.raises(Interrupted):
        finish(stopping)
    path = tmp_path / "run" / "state.safetensors"
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    tensors = {name.replace(".criterion.", "."): tensor for name, tensor in load_file(path).items()}
    assert "objective.std_head.weight" in tensors
    save_maps(tensors, path, metadata=metadata)

    again = finish(begin(tiny(), data, tmp_path / "run"))

    assert history(again) == history(whole)
    assert (again.run / "weights.safetensors").read_bytes() == (
        whole.run / "weights.safetensors"
    ).read_bytes()


def test_validation_has_no_ambiguous_pixels() -> None:
    network = UNet(width=4, depth=2).build().eval()
    image, maps = torch.rand(1, 3, 16, 16), (torch.rand(1, 1, 16, 16) < 0.2).float()
    clustering, _ = PhaseObjective(network, Clustering())(image, maps, torch.ones_like(maps), {})
    plain, _ = PhaseObjective(network, BCE())(image, maps, torch.ones_like(maps), {})
    assert clustering.item() == plain.item()
