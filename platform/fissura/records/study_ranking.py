"""The trials of a study that ended, and the best of them in their order."""

import math
from bisect import insort
from typing import TYPE_CHECKING

from fissura.records.trial_attributes import PAPER, RUN, SKIPPED

if TYPE_CHECKING:
    import optuna


def finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """Trials that ended, well or not: those that a search of N trials counts. A skipped one was never run."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and SKIPPED not in trial.user_attrs
    ]


class Ranking:
    """The completed trials of a study, best first, as they end; of several objectives the Pareto front, in
    the order of the first one."""

    def __init__(self, study: "optuna.Study") -> None:
        from optuna.study import StudyDirection

        self._signs = [-1 if one == StudyDirection.MAXIMIZE else 1 for one in study.directions]
        self.trials: list[optuna.trial.FrozenTrial] = []
        self._papers: list[optuna.trial.FrozenTrial] = []
        for trial in finished(study):
            self.add(trial)

    def add(self, trial: "optuna.trial.FrozenTrial") -> None:
        """Puts a trial that ended in its place, where it has one: completed, with finite values."""
        from optuna.trial import TrialState

        if trial.state != TrialState.COMPLETE or not all(map(math.isfinite, trial.values)):
            return
        if len(self._signs) > 1:
            if any(self._beats(other, trial) for other in self.trials):
                return
            self.trials = [other for other in self.trials if not self._beats(trial, other)]
            self._papers = [other for other in self._papers if not self._beats(trial, other)]
        insort(self.trials, trial, key=lambda one: (self._signs[0] * one.values[0], one.number))
        if trial.user_attrs.get(PAPER):
            self._papers.append(trial)

    def runs(self, *, best: int) -> list[str]:
        """The runs of the `best` trials, and of the paper's own configuration, which they are compared
        with."""
        return list(dict.fromkeys(trial.user_attrs[RUN] for trial in self.trials[:best] + self._papers))

    def _beats(self, one: "optuna.trial.FrozenTrial", other: "optuna.trial.FrozenTrial") -> bool:
        """Whether `one` is nowhere worse and somewhere better."""
        costs = [
            [sign * value for sign, value in zip(self._signs, trial.values, strict=True)]
            for trial in (one, other)
        ]
        return costs[0] != costs[1] and all(a <= b for a, b in zip(*costs, strict=True))


def best_trials(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """Completed trials, best first; of several objectives the Pareto front, in the order of the first one."""
    return Ranking(study).trials


def runs_to_keep(study: "optuna.Study", *, best: int) -> list[str]:
    """The runs of the best trials, and of the paper's own configuration, which they are compared with."""
    return Ranking(study).runs(best=best)
