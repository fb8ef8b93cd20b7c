"""The result of a search, for the caller."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study as OptunaStudy
from optuna.trial import TrialState

from fissura.core.brief import Brief
from fissura.core.text import count, duration
from fissura.records.study_ranking import best_trials, finished
from fissura.records.trial_attributes import REASON, RUN
from fissura.spaces.space import LoadedSpace
from fissura.studies.results import Conclusion
from fissura.studies.study import Plan, Study


@dataclass(frozen=True, repr=False)
class SearchResult(Brief):
    """The result of a search: its study, the trials by state, the best trial and its run, the result files,
    and why trials failed."""

    study: Path
    planned: int
    trials: dict[str, int]
    best: dict[str, Any] | None
    interrupted: bool
    seconds: float
    conclusion: Conclusion
    failures: dict[int, str]
    best_run: Path | None = None

    def lines(self) -> list[str]:
        """The trials by state, the best trial and its run."""
        states = ", ".join(f"{number} {state}" for state, number in sorted(self.trials.items()))
        lines = [
            f"study {self.study}",
            f"  {sum(self.trials.values())} of {count(self.planned, 'trial')} ({states or 'none'}) in"
            f" {duration(self.seconds)}{', interrupted' if self.interrupted else ''}",
        ]
        if self.best is not None:
            values = ", ".join(f"{name} {value:.4f}" for name, value in self.best["values"].items())
            lines += [f"  best: trial {self.best['trial']}, {values}", f"  run: {self.best_run}"]
        return lines

    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial of the study: number, state, values, parameters, run, and why it failed."""
        study = Study(self.study)
        plan = study.plan()
        space = plan.load_space(study.path)
        metrics = [objective.metric for objective in space.objectives]
        return [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                **dict(zip(metrics, trial.values or [], strict=False)),
                **trial.params,
                "run": str(study.runs / trial.user_attrs[RUN]) if RUN in trial.user_attrs else None,
                "reason": trial.user_attrs.get(REASON),
            }
            for trial in study.load().trials
        ]


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
        best_run=study.runs / best[0].user_attrs[RUN] if best and RUN in best[0].user_attrs else None,
    )
