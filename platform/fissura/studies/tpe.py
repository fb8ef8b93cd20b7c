"""TPE whose time for a suggestion stops growing: beyond some thousand trials it looks at the best and the
latest."""

import heapq
import math
from collections.abc import Container
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

HISTORY = 1000
"""Ended trials that are looked at. TPE itself gives older ones less weight."""

BEST = 25
"""The best of them all stay in sight: the number that Optuna's TPE models as good ones, at most."""


class BoundedTPE(TPESampler):
    """Optuna's TPE, unchanged up to `history` ended trials; then over the `BEST` of all, those that run, and
    the latest. With several objectives there is no best one, and all that is looked at are the latest."""

    def __init__(self, *, seed: int, startup: int, history: int = HISTORY) -> None:
        super().__init__(seed=seed, n_startup_trials=startup)
        self._history = history

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

    def _within(self, study: Study) -> Study:
        return _Recent.of(study, self._history)


class _Recent(Study):
    """A study that shows a sampler some of its trials."""

    _shown: list[FrozenTrial]

    @classmethod
    def of(cls, study: Study, history: int) -> Study:
        """The study itself, while it is short; a view of it when it is not."""
        trials = study.get_trials(deepcopy=False)
        if len(trials) <= history:
            return study
        view = cls.__new__(cls)
        view.__dict__.update(study.__dict__)
        view._shown = _chosen(trials, history, None if study._is_multi_objective() else study.direction)
        return view

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  Optuna's signature
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: FBT001, FBT002
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]


def _chosen(trials: list[FrozenTrial], history: int, direction: StudyDirection | None) -> list[FrozenTrial]:
    """In the order of their numbers: those that run, the best, the latest."""
    numbers = {trial.number for trial in trials[-history:]}
    numbers |= {trial.number for trial in trials if not trial.state.is_finished()}
    if direction is not None:
        sign = -1 if direction == StudyDirection.MAXIMIZE else 1
        told = (trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
        best = heapq.nsmallest(BEST, told, key=lambda trial: _place(trial, sign))
        numbers |= {trial.number for trial in best}
    return [trials[number] for number in sorted(numbers)]


def _place(trial: FrozenTrial, sign: int) -> tuple[int, int, float]:
    """TPE's own order: completed trials by value, then stopped ones by how far they came."""
    if trial.state == TrialState.COMPLETE:
        return (0, 0, sign * (trial.value or 0.0))
    step, value = max(trial.intermediate_values.items(), default=(0, math.nan))
    return (1, -step, math.inf if math.isnan(value) else sign * value)
