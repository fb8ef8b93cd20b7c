"""Losses with a map of the labels, and one with a parameter of its own, in a training and in a search."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import optuna
import pytest

from fissura.core.errors import Interrupted
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets import parse_dataset
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.losses import (
    VGG,
    AnyLoss,
    Boundary,
    Dice,
    PersistentTopology,
    RobustT,
    RobustTLoss,
    SkeletonRecall,
    Term,
    WeightedSum,
)
from fissura.metrics import Pixel
from fissura.models import UNet
from fissura.segmentation.recipe import Adam, Phase, Recipe
from fissura.segmentation.trainer import Trainer
from fissura.spaces import load_text
from fissura.training.runtime import LocalRuntime

KINDS = [loss.model_fields["kind"].default for loss in get_args(get_args(AnyLoss)[0])]
LOSS = WeightedSum(
    terms=(
        Term(name="dice", loss=Dice()),
        Term(name="recall", loss=SkeletonRecall()),
        Term(name="contour", weight=0.01, growth=0.01, loss=Boundary()),
        Term(name="tail", loss=RobustT()),
        Term(name="topology", weight=0.05, loss=PersistentTopology(patch=16)),
        Term(name="seen", weight=0.1, loss=VGG(weights="none")),
    )
)
RECIPE = Recipe(
    name="mixed",
    data=Pipeline(
        resize=Native(), crop=RandomCrop(size=32, per_image=2), batch_size=2,
        augmentation=Augmentation(horizontal_flip=0.5, rotate_90=0.7),
    ),
    model=UNet(width=4, depth=2),
    epochs=2,
    phases=(Phase(name="train", loss=LOSS, optimizer=Adam(lr=1e-2)),),
    protocols=(Pixel(),),
)  # fmt: skip


class StopsEarly(LocalRuntime):
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
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write(SyntheticSpec(train=4, val=2, test=1, height=48, width=40), folder)
    return prepare(
        [parse_dataset(f"synthetic:{folder}")], resize=Native(), directory=folder.with_name("cache")
    )


def trained(data: PreparedData, run: Path, runtime: LocalRuntime) -> tuple[Trainer, float]:
    """A training to its end, and the nu that it learned."""
    trainer = Trainer(RECIPE, data=data, run=run, runtime=runtime)
    objective = trainer._active.objective
    while not trainer.finished:
        trainer.step()
    (tail,) = (part for part in objective.modules() if isinstance(part, RobustTLoss))
    return trainer, float(tail.n.detach().exp())


def test_a_sum_of_them_trains_and_goes_on_with_the_nu_that_it_had(data: PreparedData, tmp_path: Path) -> None:
    whole, nu = trained(data, tmp_path / "whole", LocalRuntime(device="cpu", cpus=1))
    assert np.isfinite([[record["train/loss"], record["val/loss"]] for record in whole.history]).all()
    assert not math.isclose(nu, 1, rel_tol=1e-3), "it is learned"
    with pytest.raises(Interrupted):
        trained(data, tmp_path / "run", StopsEarly(after=6))
    again, nu_again = trained(data, tmp_path / "run", LocalRuntime(device="cpu", cpus=1))
    assert nu_again == nu
    weights = [(trainer.run / "weights.safetensors").read_bytes() for trainer in (whole, again)]
    assert weights[0] == weights[1]


def test_the_trainer_tells_the_epoch_of_the_phase_by_which_a_weight_grows(
    data: PreparedData, tmp_path: Path
) -> None:
    told: list[tuple[str, int]] = []
    terms = (Term(name="dice", loss=Dice()), Term(name="contour", growth=0.01, loss=Boundary()))
    phases = (
        Phase(name="one", loss=WeightedSum(terms=terms), until=0.5),
        Phase(name="two", loss=WeightedSum(terms=terms)),
    )
    recipe = RECIPE.model_copy(update={"phases": phases, "epochs": 4})
    trainer = Trainer(recipe, data=data, run=tmp_path, runtime=LocalRuntime(device="cpu", cpus=1))
    while not trainer.finished:
        criterion = trainer._active.objective.criterion
        phase = trainer._active.phase.name
        trainer.step()
        told.append((phase, criterion._epoch))
    assert told == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]


def test_a_weight_that_stays_leaves_the_names_of_runs_as_they_were() -> None:
    def recipe(growth: float) -> Recipe:
        term = Term(name="contour", growth=growth, loss=Boundary())
        inner = WeightedSum(terms=(Term(name="inner", loss=WeightedSum(terms=(term,))),))
        return RECIPE.model_copy(update={"phases": (Phase(name="train", loss=inner),)})

    assert "growth" not in str(recipe(0).named_by())
    assert recipe(0).run_id("c" * 16) != recipe(0.01).run_id("c" * 16)


def test_a_search_chooses_among_all_kinds() -> None:
    space = load_text(
        f"""
recipe: small_unet
objective: {{metric: val/f1, mode: max}}
space:
  phases.train.loss.kind: {{choice: [{", ".join(kind for kind in KINDS if kind != "clustering")}]}}
  phases.train.loss.epsilon: {{float: [-1.0, 5.0], when: {{phases.train.loss.kind: [poly]}}}}
  phases.train.loss.crack_weight: {{float: [1.0, 20.0], when: {{phases.train.loss.kind: [weighted_bce]}}}}
  phases.train.loss.nu: {{float: [0.5, 20.0], log: true, when: {{phases.train.loss.kind: [robust_t]}}}}
""",
        source="space",
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    chosen = {space.recipe_for(space.suggest(study.ask())).phases[0].loss.kind for _ in range(400)}
    assert chosen == set(KINDS) - {"clustering"}, "which needs a phase before its own"
