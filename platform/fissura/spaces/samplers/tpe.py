"""TPE whose time for a suggestion stops growing: beyond some thousand trials it looks at the best and the
latest."""

import math
from bisect import insort
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

HISTORY = 1000
"""Ended trials that are looked at. TPE itself gives older ones less weight."""

BEST = 25
"""The best of them all stay in sight: the number that Optuna's TPE models as good ones, at most."""


Place = tuple[int, int, float]


class BoundedTPE(TPESampler):
    """Optuna's TPE, unchanged up to `history` trials; then over the `BEST` of all, those that run, and the
    latest. With several objectives there is no best one, and all that is looked at are the latest."""

    def __init__(self, *, seed: int, startup: int, history: int = HISTORY) -> None:
        super().__init__(seed=seed, n_startup_trials=startup)
        self._history = history
        # kept up as trials end, so that a suggestion need not look at all of them
        self._best: list[tuple[Place, int]] | None = None

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the parameters that are sampled together."""
        return super().sample_relative(self._within(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value for one parameter."""
        return super().sample_independent(self._within(study), trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Learns how a trial ended."""
        super().after_trial(study, trial, state, values)
        if self._best is not None:
            self._rank(study, trial, state, values)

    def _within(self, study: Study) -> Study:
        """The study itself, while it is short; a view of it when it is not."""
        trials = study.get_trials(deepcopy=False)
        if len(trials) <= self._history:
            return study
        if self._best is None:
            self._best = []
            for trial in trials:
                self._rank(study, trial, trial.state, trial.values)
        shown = {trial.number for trial in trials[-self._history :]} | {number for _, number in self._best}
        shown |= {trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
        return _View(study, [trials[number] for number in sorted(shown)])

    def _rank(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        if self._best is None or study._is_multi_objective():
            return
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        # TPE's own order: completed trials by value, then stopped ones by how far they came
        if state == TrialState.COMPLETE and values:
            insort(self._best, ((0, 0, sign * values[0]), trial.number))
        elif state == TrialState.PRUNED:
            step, value = max(trial.intermediate_values.items(), default=(0, math.nan))
            insort(self._best, ((1, -step, math.inf if math.isnan(value) else sign * value), trial.number))
        del self._best[BEST:]


class _View(Study):
    """A study that shows a sampler some of its trials."""

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._shown = trials

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  Optuna's signature
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: FBT001, FBT002
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]
