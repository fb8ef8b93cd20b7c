"""A clock that jumps an hour back and forth: what is computed stays the same, and durations stay true."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from safetensors.numpy import load_file

from fissura.data.datasets import parse_dataset
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.search.searcher import StudySearch
from fissura.recipes import load_recipe
from fissura.records.manifest import Manifest
from fissura.records.trial_attributes import TOOK
from fissura.reports.report import took
from fissura.segmentation.fit import fit
from fissura.segmentation.recipe import Recipe
from fissura.spaces.fields import override
from fissura.spaces.load import load_text
from fissura.training.checkpoint import WEIGHTS
from fissura.training.runtime import LocalRuntime

HOUR = 3600
SMALL = {"model.width": 4, "model.depth": 2, "data.crop.size": 32, "epochs": 2}
WALL = ("time", "time_ns")


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has the wall clock stand an hour later, and earlier, at each other look."""

    def begin() -> None:
        jumps = itertools.cycle((0, HOUR, -HOUR))
        for name in WALL:
            true, unit = getattr(time, name), 10**9 if name.endswith("_ns") else 1
            monkeypatch.setattr(time, name, lambda true=true, unit=unit: true() + next(jumps) * unit)

        class Jumping(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.now(tz) + timedelta(seconds=next(jumps))

        for module in (
            "fissura.segmentation.run.datetime",
            "optuna.storages._in_memory.datetime",
            "optuna.storages._rdb.storage.datetime",
        ):
            monkeypatch.setattr(module, Jumping)

    return begin


def test_a_training_under_a_jumping_clock_is_the_same_one(
    jumping: Callable[[], None], tmp_path: Path
) -> None:
    write(
        SyntheticSpec(train=2, val=1, test=1, height=48, width=48, crack_width=(1.5, 4.0)), tmp_path / "set"
    )
    dataset = parse_dataset(f"synthetic:{tmp_path / 'set'}")
    recipe = override(load_recipe("small_unet"), SMALL)
    assert isinstance(recipe, Recipe)

    def train(name: str) -> tuple[dict[str, np.ndarray], Manifest]:
        begin = time.monotonic()
        manifest = fit(
            recipe,
            datasets=[dataset],
            run=tmp_path / name,
            cache=tmp_path / "cache" / name,
            runtime=LocalRuntime(device="cpu", cpus=1),
        )
        assert 0 < manifest.seconds < time.monotonic() - begin
        assert (manifest.finished - manifest.started).total_seconds() == pytest.approx(
            manifest.seconds, abs=1e-3
        )
        return load_file(tmp_path / name / WEIGHTS), manifest

    weights, manifest = train("steady")
    jumping()
    jumped, other = train("jumping")
    assert jumped.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(jumped[name], array)
    assert other.best_epoch == manifest.best_epoch


def test_a_trial_took_what_a_steady_clock_saw(jumping: Callable[[], None], tmp_path: Path) -> None:
    space = load_text(
        "recipe: small_unet\nobjective: {metric: val/f1, mode: max}\nspace:\n"
        "  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-1], log: true}\n",
        source="mine.yaml",
    )
    search = StudySearch(
        space,
        storage=optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db"),
        study_name="study",
        seed=0,
        content="c" * 16,
        context={},
        stop_requested=lambda: False,
    )
    jumping()
    begin = time.monotonic()
    for name in ("a", "b", "c"):
        search.suggest(name)
        search.on_trial_complete(name, {"val/f1": 0.5, "epoch": 1, "kept_epoch": 1, "finished": True})
    spent = time.monotonic() - begin
    trials = search.study.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert all(0 <= took(trial) <= spent for trial in trials)


def test_a_trial_of_an_earlier_version_took_no_less_than_nothing() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC).replace(tzinfo=None)
    trial = create_trial(value=0.5)
    trial.datetime_start, trial.datetime_complete = noon, noon - timedelta(hours=1)
    assert took(trial) == 0.0
    trial.set_user_attr(TOOK, 12.5)
    assert took(trial) == 12.5
