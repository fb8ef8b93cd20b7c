"""The result of a search: a few lines, the best run, and the trials as a data frame."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from fissura.distributed.search.search_result import SearchResult, outcome
from fissura.records.trial_attributes import REASON, RUN
from fissura.reports.task_leaderboard import Leaderboards
from fissura.studies.results import Conclusion
from fissura.studies.study import Plan, Study

SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
trials: 3
space:
  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-1], log: true}
"""


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    """Of a search of three trials: two that ended, and one that failed."""
    study = Study(tmp_path / "studies" / "mine")
    plan = Plan.load(
        {
            "name": "mine",
            "space": SPACE,
            "profile": None,
            "fixed": {},
            "content": "c" * 16,
            "trials": 3,
            "datasets": [{"kind": "folder", "root": str(tmp_path)}],
            "seed": 0,
        },
        source="test",
    )
    study.write(plan)
    made = optuna.create_study(storage=study.storage(), study_name="mine", direction="maximize")
    rates = {"phases.train.optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}
    for value, run, state in (
        (0.5, "a" * 16, "COMPLETE"),
        (0.75, "b" * 16, "COMPLETE"),
        (None, "c" * 16, "FAIL"),
    ):
        made.add_trial(
            create_trial(
                state=TrialState[state],
                value=value,
                params={"phases.train.optimizer.lr": 0.01},
                distributions=rates,
                user_attrs={RUN: run} | ({} if value else {REASON: "broken"}),
            )
        )
    space = plan.load_space(study.path)
    return outcome(study, plan, space, made, Conclusion((), Leaderboards()), interrupted=False, seconds=83.0)


def test_prints_the_best_trial_and_its_run(result: SearchResult) -> None:
    assert result.best_run == result.study / "runs" / ("b" * 16)
    assert repr(result).splitlines() == [
        f"study {result.study}",
        "  3 of 3 trials (2 complete, 1 fail) in 1 min 23 s",
        "  best: trial 1, val/f1 0.7500",
        f"  run: {result.best_run}",
    ]


def test_is_a_frame_of_its_trials(result: SearchResult) -> None:
    frame = result.to_pandas()
    assert list(frame["state"]) == ["complete", "complete", "fail"]
    assert list(frame["val/f1"].dropna()) == [0.5, 0.75]
    assert list(frame["phases.train.optimizer.lr"]) == [0.01] * 3
    assert frame.loc[1, "run"] == str(result.best_run)
    assert frame.loc[2, "reason"] == "broken"
