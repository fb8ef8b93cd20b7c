"""`fissura plan`: where its times come from, what it refuses, what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fissura.data.cache import prepare
from fissura.data.datasets import parse_datasets
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.search.searcher import StudySearch
from fissura.operations.forecast.learning_curves import read_study
from fissura.operations.forecast.measure import amdahl_share, measure
from fissura.spaces.load import load_space, load_text
from fissura.studies.study import Plan, Study

SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
trials: 6
sampler: {kind: tpe, startup: 2}
scheduler: {kind: asha, grace: 1, reduction: 2}
space:
  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-1], log: true}
  model.width: {choice: [4, 8]}
"""
SETTINGS = {"epochs": 4, "data.crop.size": 32, "data.crop.per_image": 1, "model.depth": 1}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of four trials: one complete, two stopped, one failed; epochs of 2 s, the first of 3 s."""
    made = Study(tmp_path / "studies" / "mine")
    plan = {
        "name": "mine", "space": SPACE, "profile": None, "fixed": SETTINGS, "content": "c" * 16, "trials": 4,
        "datasets": [{"kind": "folder", "root": str(tmp_path)}], "seed": 0,
    }  # fmt: skip
    made.write(Plan.load(plan, source="test"))
    search = StudySearch(
        load_text(SPACE, source="test.yaml", fixed=SETTINGS), storage=made.storage(), study_name="mine",
        seed=0, content="c" * 16, context={}, stop_requested=lambda: False,
    )  # fmt: skip
    for name, epochs in (("a", 4), ("b", 1), ("c", 2), ("d", 1)):
        search.suggest(name)
        for epoch in range(1, epochs + 1):
            result = {"epoch": epoch, "val/f1": epoch / 10, "step_seconds": 3.0 if epoch == 1 else 2.0}
            result |= {"interrupted": False, "failure": "broken" if name == "d" else ""}
            result["finished"] = name == "a" and epoch == epochs
            if epoch < epochs:
                search.on_trial_result(name, result)
            else:
                # Tune shows a stopped trial's last result twice
                search.on_trial_result(name, result)
                search.on_trial_complete(name, result)
    return made


def test_a_study_tells_its_epochs_and_its_curves(study: Study) -> None:
    courses, times = read_study(study, epochs=4, startup=2)
    assert [one.seconds for one in courses.trials] == [2.0, 3.0, 2.0, 3.0]
    assert [one.epochs for one in courses.trials] == [4, 4, 4, 1]
    assert [list(one.values) for one in courses.trials] == [
        pytest.approx([0.1, 0.2, 0.3, 0.4]), [0.1], pytest.approx([0.1, 0.2]), [0.1],
    ]  # fmt: skip
    assert courses.steps == pytest.approx([0, 0.1, 0.1, 0.1])
    assert (times.first, times.spread) == (1.0, 0.0)
    import random

    drawn = courses.draw(5, random.Random(0))
    assert drawn.value(drawn.epochs) == pytest.approx(drawn.epochs / 10), "a stopped curve goes on"


def test_the_share_that_cpus_divide_follows_from_two_times() -> None:
    assert amdahl_share(10.0, 5.0, cpus=1, more_cpus=2) == 1
    assert amdahl_share(10.0, 10.0, cpus=1, more_cpus=2) == 0
    assert amdahl_share(10.0, 6.0, cpus=1, more_cpus=2) == pytest.approx(0.8)
    # 80 % of 10 s: 6 s on two CPUs, 4 s on four
    assert amdahl_share(6.0, 4.0, cpus=2, more_cpus=4) == pytest.approx(0.8)


def test_a_measurement_trains_the_papers_setting_and_others(tmp_path: Path) -> None:
    write(
        SyntheticSpec(train=8, val=4, test=2, height=32, width=32, crack_width=(1.5, 4.0)),
        tmp_path / "images",
    )
    data = prepare(
        parse_datasets([f"synthetic:{tmp_path / 'images'}"]),
        resize=load_text(SPACE, source="x").recipe.data.resize,  # type: ignore[attr-defined]
        directory=tmp_path / "cache",
    )
    told: list[str] = []
    space = load_text(SPACE, source="test.yaml", fixed=SETTINGS)
    found = measure(space, data, settings=2, cpus=1, most_cpus=1, seed=0, say=told.append)
    assert len(found.seconds) == len(told) == 2
    assert all(0 < seconds < 60 for seconds in found.seconds)
    assert len(data.some(train=3, val=2)) == 5
    assert data.some(train=3, val=2).indices("test") == []


def test_of_a_filter_the_validation_is_measured(tmp_path: Path) -> None:
    write(SyntheticSpec(train=2, val=3, test=2, height=64, width=64), tmp_path / "images")
    data = prepare(
        parse_datasets([f"synthetic:{tmp_path / 'images'}"]), resize=Native(), directory=tmp_path / "cache"
    )
    found = measure(load_space("sato"), data, settings=2, cpus=1, most_cpus=1, seed=0, say=lambda _: None)
    assert found.first == 0
    assert len(found.seconds) == 2
    assert min(found.seconds) > 0


def test_it_plans_from_a_study(study: Study, tmp_path: Path, fissura: Callable[..., Any]) -> None:
    (tmp_path / "mine.yaml").write_text(SPACE)
    words = ["plan", tmp_path / "mine.yaml", "--study", study.path, "--set", "epochs=4", "--cpus", 4]
    words += ["--nodes", 2, "--gpus", 0, "--price", 3, "--spot-price", 1, "--preemptions", 2]
    words += ["--failures", 0.5, "--trials", 12, "--repetitions", 20, "--node-start", 60]
    code, out, said = fissura(*words, "--json")
    found = json.loads(out)
    assert (code, said) == (0, [])
    assert [one["lanes"]["concurrent"] for one in found["forecasts"]] == [1, 2, 4, 8]
    assert found["best"] in found["forecasts"]
    alone, *_, most = found["forecasts"]
    assert alone["seconds"]["median"] > most["seconds"]["median"] > 60
    assert most["cost"]["median"] == pytest.approx(most["seconds"]["median"] / 3600 * 2 * 3)
    assert found["spot"]["cost"]["median"] < found["best"]["cost"]["median"]

    code, out, said = fissura(*words)
    assert (code, said) == (0, [])
    assert f"times and curves of 4 trials of {study.path}" in out
    assert "\nbest: " in out
    assert "on spot nodes: " in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "none is given; give one"),
        (["--epoch-seconds", "3", "--measure", "2"], "--measure and --epoch-seconds are given"),
        (["--measure", "2"], "--measure: trains for some steps on your images"),
        (["--epoch-seconds", "3", "--data", "synthetic:x"], "only --measure trains"),
        (["--epoch-seconds", "3", "--preemptions", "1"], "give their --spot-price too"),
        (["--epoch-seconds", "3", "--cpus", "2", "--gpus", "0", "--concurrency", "3"], "ask for 2 or fewer"),
        (["--study", "nowhere"], "there is no such folder"),
        (["--epoch-seconds", "9999", "--failures", "3600"], "give a lower rate"),
    ],
)
def test_it_says_what_to_mend(words: list[str], problem: str, fissura: Callable[..., Any]) -> None:
    code, out, said = fissura("plan", "small_unet", *words)
    assert (code, out) == (2, "")
    assert problem in "\n".join(said)


def test_classifiers_are_not_planned(fissura: Callable[..., Any]) -> None:
    code, _, said = fissura("plan", "cnn_svm", "--epoch-seconds", 1)
    assert code == 2
    assert "searches classifiers" in said[0]
