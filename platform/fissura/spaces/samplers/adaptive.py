"""The adaptive rule for C and gamma as a sampler (Yang, *Automatic recognition of concrete cracks ...*).

The rule reads the kind of error that the best setting makes on validation images: more false alarms than
missed cracks move C, else gamma; it goes on until F1 rises no more. The paper gives neither directions nor
step sizes. Readings:

- both directions are tried, and the one that raises F1 is taken;
- where neither does, the other parameter is tried, then both again with a smaller step, until the step is
  below `least`;
- after that, where trials are left, it begins again at a random point.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from fissura.records.trial_attributes import SKIPPED

C, GAMMA = "classifier.C", "classifier.gamma"
FALSE_ALARMS, MISSED_ALARMS = "false_alarm_rate", "missed_alarm_rate"
Point = tuple[float, float]


@dataclass(frozen=True)
class Tried:
    """A setting that was tried, and what came of it: `value` is the F1, minus infinity where the trial
    failed."""

    point: Point
    value: float
    false_alarm_rate: float
    missed_alarm_rate: float


def next_point(
    history: Sequence[Tried], *, factor: float, least: float, low: Point, high: Point
) -> Point | None:
    """The setting that follows from `history`, oldest first; None where a new beginning is due.

    A step multiplies or divides by `factor`, whose root is taken each time that no neighbour is better, until
    it is below `least`. Settings outside `low` to `high`, and such as were tried since the last beginning,
    are left out.
    """
    if not history:
        return None
    best, step, seen = history[0], factor, {history[0].point}
    waiting = _neighbours(best, step, low, high, seen)
    for one in history[1:]:
        if not waiting:
            best, step, seen = one, factor, {one.point}
        else:
            seen.add(one.point)
            waiting = [point for point in waiting if point != one.point]
        if one.value > best.value:
            best, waiting = one, _neighbours(one, step, low, high, seen)
        elif one is best:
            waiting = _neighbours(best, step, low, high, seen)
        while not waiting and (step := step**0.5) >= least:
            waiting = _neighbours(best, step, low, high, seen)
    return waiting[0] if waiting else None


def _neighbours(tried: Tried, step: float, low: Point, high: Point, seen: set[Point]) -> list[Point]:
    """The settings one step away, the parameter that the kind of error names first."""
    c, gamma = tried.point
    of_c: list[Point] = [(c * step, gamma), (c / step, gamma)]
    of_gamma: list[Point] = [(c, gamma * step), (c, gamma / step)]
    moves_c = tried.false_alarm_rate >= tried.missed_alarm_rate
    steps = of_c + of_gamma if moves_c else of_gamma + of_c
    return [
        point
        for point in steps
        if point not in seen and all(a <= value <= b for a, value, b in zip(low, point, high, strict=True))
    ]


class AdaptiveSampler(BaseSampler):
    """Optuna's view of the rule. Other parameters keep the values of the first trial, so that C and gamma
    alone are searched."""

    def __init__(self, *, factor: float, least: float, seed: int) -> None:
        self._factor, self._least = factor, least
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """C and gamma, once a trial has had them."""
        return {
            name: distribution
            for one in study.get_trials(deepcopy=False)
            for name, distribution in one.distributions.items()
            if name in (C, GAMMA)
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """C and gamma by the rule; nothing where a new beginning is due, so that they are drawn."""
        bounds = [search_space.get(name) for name in (C, GAMMA)]
        ranges = [one for one in bounds if isinstance(one, FloatDistribution)]
        if len(ranges) < 2:
            return {}
        point = next_point(
            list(_history(study)),
            factor=self._factor,
            least=self._least,
            low=(ranges[0].low, ranges[1].low),
            high=(ranges[0].high, ranges[1].high),
        )
        return {} if point is None else dict(zip((C, GAMMA), point, strict=True))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What the first trial had; C and gamma at random."""
        trials = study.get_trials(deepcopy=False)
        if param_name not in (C, GAMMA) and trials and param_name in trials[0].params:
            return trials[0].params[param_name]
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draws the random beginnings anew."""
        self._random.reseed_rng()


def _history(study: optuna.Study) -> Iterator[Tried]:
    for trial in study.get_trials(deepcopy=False):
        known = {C, GAMMA} <= trial.params.keys()
        if known and trial.state.is_finished() and SKIPPED not in trial.user_attrs:
            yield Tried(
                (trial.params[C], trial.params[GAMMA]),
                trial.values[0] if trial.values else float("-inf"),
                trial.user_attrs.get(FALSE_ALARMS, 0.0),
                trial.user_attrs.get(MISSED_ALARMS, 0.0),
            )
