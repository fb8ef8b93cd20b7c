"""Trains and scores a row: the epochs that fit the minutes, then the project's own verbs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.campaign.rows import FILTERS, Row

import fissura
from fissura.core.documents import read_json
from fissura.core.errors import Diverged, UserError
from fissura.core.files import write_json
from fissura.core.progress import Say
from fissura.data.datasets import parse_datasets
from fissura.data.trainable import prepare_training
from fissura.operations.forecast.measure import seconds_an_epoch
from fissura.segmentation.recipe import Recipe
from fissura.spaces.fields import override
from fissura.spaces.load import load_space
from fissura.training.experiment import Experiment
from fissura.training.runtime import usable_cpus

PROTOCOLS = ("pixel", "tolerant:2")
CONDITIONS = ("clean", "shadow", "stain", "low_contrast")
LEAST_EPOCHS = 2  # of a phase: one is no training curve
EPOCHS = 12  # that a schedule, and the choice of the kept one, need


@dataclass(frozen=True)
class Terms:
    """What all rows share: `minutes` of training each, the `profile` of their spaces, the folder `out`."""

    minutes: float
    profile: str
    out: Path
    cache: Path


@dataclass(frozen=True)
class Outcome:
    """The run of a row on one data set, of the content `digest`, with one seed."""

    row: str
    data: str
    seed: int
    run: Path
    digest: str
    classifies: bool

    @property
    def judged_under(self) -> tuple[str, ...]:
        """The protocols, or the conditions of the images, that it is scored under; the first one leads."""
        return CONDITIONS if self.classifies else PROTOCOLS


@dataclass(frozen=True)
class Failed:
    """A row without a run, and why."""

    row: str
    data: str
    seed: int
    reason: str


def train(row: Row, *, data: str, seed: int, terms: Terms, say: Say) -> Outcome | Failed:
    """Trains the row, or goes on with it. What fails is named, and stops no other row."""
    try:
        recipe = _planned(row, data=data, terms=terms)["recipe"]
        run, manifest = fissura.train(
            recipe, data=[data], seed=seed, storage=terms.out, cache=terms.cache, say=say
        )  # fmt: skip
    except (UserError, Diverged) as error:
        return Failed(row.name, data, seed, str(error))
    return Outcome(row.name, data, seed, run, manifest.data.digest, row.classifies)


def plan(row: Row, *, data: str, terms: Terms) -> str:
    """The epochs that fit the row's minutes, in words; measured once."""
    try:
        planned = _planned(row, data=data, terms=terms)
    except (UserError, Diverged) as error:
        return str(error)
    epochs = read_json(Path(planned["recipe"]), remedy="remove it, then start again").get("epochs")
    seconds = planned["seconds_an_epoch"]
    return f"{epochs} epochs of {seconds:.2f} s" if seconds else "has no epochs to count"


def score(outcome: Outcome, *, others: Sequence[str], terms: Terms) -> None:
    """Scores the run, once, on the test images of its own data, with the threshold that its validation images
    choose for each protocol, and with the same on those of `others`. A classifier is scored on the test
    images of its own data, clean and disturbed."""
    file = terms.out / "scored.json"
    if outcome.classifies:
        if outcome.run.name not in _read(file):
            fissura.evaluate(outcome.run, data=[outcome.data], conditions=CONDITIONS, cache=terms.cache)
            write_json(file, {**_read(file), outcome.run.name: {}})
        return
    thresholds = _read(file).get(outcome.run.name, {})
    if not thresholds:
        rows = fissura.evaluate(outcome.run, data=[outcome.data], protocols=PROTOCOLS, cache=terms.cache)
        thresholds = {outcome.data: {row.protocol: row.threshold for row in rows}}
    for data in others:
        if data in thresholds:
            continue
        for protocol, threshold in thresholds[outcome.data].items():
            fissura.evaluate(
                outcome.run, data=[data], protocols=[protocol], threshold=threshold, cache=terms.cache
            )
        thresholds[data] = thresholds[outcome.data]
    write_json(file, {**_read(file), outcome.run.name: thresholds})


def recipe_of(row: Row, *, profile: str) -> Experiment:
    """The row's recipe: the paper's own setting within the profile, and the row's settings over it."""
    own = {} if row.classifies else {"model.weights": "none", "threshold": {"kind": "validation"}}
    sized = None if row.space in FILTERS else profile
    space = load_space(row.space, profile=sized, fixed={**own, **row.settings})
    return space.recipe_for(space.paper_point())


def _planned(row: Row, *, data: str, terms: Terms) -> dict[str, Any]:
    """The path of the row's recipe, of as many epochs as fit, and the seconds of one; chosen once. What has
    no epochs is as it is."""
    file, key = terms.out / "plan.json", f"{row.name} on {data}"
    plans = _read(file)
    if key not in plans:
        recipe, seconds = recipe_of(row, profile=terms.profile), None
        if isinstance(recipe, Recipe) and recipe.epochs:
            recipe, seconds = _fitted(recipe, data=data, terms=terms)
        path = terms.out / "recipes" / f"{recipe.configuration}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, recipe.plain())
        plans[key] = {"recipe": str(path), "seconds_an_epoch": seconds}
        write_json(file, plans)
    plan: dict[str, Any] = plans[key]
    return plan


def _fitted(recipe: Recipe, *, data: str, terms: Terms) -> tuple[Recipe, float]:
    """The recipe with the whole epochs that fit the minutes, and the measured seconds of one. Where fewer
    than EPOCHS would, an epoch has fewer crops of each image, if it has more than one."""
    prepared = prepare_training(parse_datasets([data]), resize=recipe.data.resize, directory=terms.cache)

    def fitting(recipe: Recipe) -> tuple[float, float]:
        first, seconds = seconds_an_epoch(recipe, prepared, cpus=usable_cpus())
        return (60 * terms.minutes - max(first, 0.0)) / seconds, seconds

    epochs, seconds = fitting(recipe)
    crops = recipe.data.crop.per_image
    if epochs < EPOCHS and crops > 1:
        recipe = override(recipe, {"data.crop.per_image": max(1, int(crops * epochs / EPOCHS))})
        epochs, seconds = fitting(recipe)
    least = LEAST_EPOCHS * sum(map(bool, recipe.phase_epochs))
    return override(recipe, {"epochs": max(least, int(epochs))}), seconds


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, remedy="remove it, then start again") if path.is_file() else {}
