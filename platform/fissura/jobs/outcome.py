"""What a search has come to, for the caller."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study as OptunaStudy
from optuna.trial import TrialState

from fissura.studies.results import Conclusion
from fissura.studies.space import LoadedSpace
from fissura.studies.study import REASON, Plan, Study, best_trials, finished


@dataclass(frozen=True)
class SearchResult:
    """A search that ended: its study, the trials by state, the best one, where the results are, why trials
    failed."""

    study: Path
    planned: int
    trials: dict[str, int]
    best: dict[str, Any] | None
    interrupted: bool
    seconds: float
    conclusion: Conclusion
    failures: dict[int, str]


def outcome(
    study: Study,
    plan: Plan,
    space: LoadedSpace,
    optuna_study: OptunaStudy,
    conclusion: Conclusion,
    *,
    interrupted: bool,
    seconds: float,
) -> SearchResult:
    """The result of a search that ended, or was stopped."""
    done = finished(optuna_study)
    states = Counter(trial.state.name.lower() for trial in done)
    best = best_trials(optuna_study)[:1]
    metrics = [objective.metric for objective in space.objectives]
    return SearchResult(
        study=study.path,
        planned=plan.trials,
        trials=dict(states),
        best={
            "trial": best[0].number,
            "values": dict(zip(metrics, best[0].values, strict=True)),
            "parameters": best[0].params,
        }
        if best
        else None,
        interrupted=interrupted,
        seconds=seconds,
        conclusion=conclusion,
        failures={t.number: t.user_attrs.get(REASON, "") for t in done if t.state == TrialState.FAIL},
    )
