"""How long a trial's epochs take and which values it reports: measured in an earlier study, or assumed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean, median, pstdev
from typing import TYPE_CHECKING, Any

from fissura.core.errors import SpaceError
from fissura.records.study_ranking import finished
from fissura.records.trial_attributes import REASON, SECONDS
from fissura.studies.study import Study

if TYPE_CHECKING:
    import optuna

NOISE, GAIN = 0.3, 2
"""The assumed curves: noise of a value from epoch to epoch, in spreads between trials; a TPE trial is the
best of so many random ones."""


@dataclass(frozen=True)
class Course:
    """The learning curve of one trial: its seconds for each of at most `epochs` epochs, and its reported
    values; higher is better. `phase` are the epochs, counted from 0, of its last phase; None: all."""

    seconds: float
    epochs: int
    values: Sequence[float]
    phase: range | None = None

    def value(self, epoch: int) -> float:
        """The value reported after this epoch, counted from 1."""
        return self.values[min(epoch, len(self.values)) - 1]


@dataclass(frozen=True)
class Assumed:
    """Learning curves of which only times are known: `seconds` has an epoch's seconds for each setting.

    Of the values only the order of trials matters. A random trial's quality is standard normal, one that TPE
    chose (after `startup`) is the better of two; what is reported scatters around it from epoch to epoch.
    `phases` are last phases of random trials, none where all trials have the same; the trial ends with its.
    """

    seconds: Sequence[float]
    epochs: int
    startup: int
    phases: Sequence[range] = ()

    def draw(self, number: int, random: Random) -> Course:
        """The learning curve for the trial of this number."""
        quality = max(random.gauss(0, 1) for _ in range(1 if number < self.startup else GAIN))
        values = [quality + random.gauss(0, NOISE) for _ in range(self.epochs)]
        seconds = random.choice(self.seconds)
        phase = random.choice(self.phases) if self.phases else None
        return Course(seconds, self.epochs if phase is None else phase.stop, values, phase)


@dataclass(frozen=True)
class Measured:
    """Learning curves drawn from the trials of a study: `startup` of them were random, the sampler chose the
    others. A stopped trial is continued by the others' mean change; values scatter as the others' changes.
    """

    trials: Sequence[Course]
    epochs: int
    startup: int
    steps: Sequence[float]
    noise: float

    def draw(self, number: int, random: Random) -> Course:
        """The learning curve for the trial of this number."""
        cut = min(self.startup, len(self.trials))
        early, late = self.trials[:cut], self.trials[cut:]
        trial = random.choice(early if number < self.startup and early else late or early)
        values = list(trial.values)
        for step in self.steps[len(values) : trial.epochs]:
            values.append(values[-1] + step)
        noisy = [value + random.gauss(0, self.noise) for value in values]
        return replace(trial, values=noisy)


@dataclass(frozen=True)
class MeasuredTimes:
    """What a study's trials measured, in seconds: `first` is what a trial's first epoch takes beyond its
    others, `actor` what the first trial takes beside its epochs, `spread` the standard deviation of an
    epoch's logarithm within a trial."""

    epoch: Sequence[float]
    first: float
    actor: float
    spread: float


def read_study(
    study: Study,
    *,
    epochs: int,
    startup: int,
    phases: Callable[[Iterable[Mapping[str, Any]]], Iterable[range]] | None = None,
) -> tuple[Measured, MeasuredTimes]:
    """The courses and times of a study's trials; `phases` says which epochs the last phase has of the trials
    at these points, None: all.

    Raises:
        SpaceError: no trial of it tells its epochs' seconds.
    """
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    loaded = study.load()
    sign = 1 if loaded.directions[0] == StudyDirection.MAXIMIZE else -1
    timed = [trial for trial in finished(loaded) if trial.user_attrs.get(SECONDS)]
    if not timed:
        raise SpaceError(
            f"--study {study.path}: no trial of it tells its epochs' seconds; name a study of a search (not"
            " of classifiers) that has ended a trial, or measure with --measure N, or give --epoch-seconds"
        )
    courses = []
    known: Sequence[range | None] = [None] * len(timed)
    if phases is not None:
        known = list(phases(trial.params for trial in timed))
    for trial, phase in zip(timed, known, strict=True):
        reported = [sign * value for _, value in sorted(trial.intermediate_values.items())]
        length = epochs
        if trial.state == TrialState.COMPLETE and REASON not in trial.user_attrs:
            length = min(epochs, max(trial.intermediate_values, default=epochs))
        elif trial.state == TrialState.FAIL:
            length = min(epochs, max(1, len(reported)))
        seconds = trial.user_attrs[SECONDS]
        courses.append(Course(fmean(seconds[1:] or seconds), length, reported or [-math.inf], phase))
    steps, noise = _steps(courses, epochs)
    times = _times(timed)
    return Measured(courses, epochs, startup, steps, noise), times


def _steps(courses: Sequence[Course], epochs: int) -> tuple[list[float], float]:
    """How values change from each epoch to the next on the mean, and how that scatters."""
    steps, residuals = [0.0], []
    for epoch in range(1, epochs):
        changes = [
            course.values[epoch] - course.values[epoch - 1]
            for course in courses
            if len(course.values) > epoch
        ]
        steps.append(fmean(changes) if changes else 0.0)
        residuals += [change - steps[-1] for change in changes]
    return steps, pstdev(residuals) / math.sqrt(2) if len(residuals) > 1 else 0.0


def _times(trials: "Sequence[optuna.trial.FrozenTrial]") -> MeasuredTimes:
    from fissura.reports.report import took

    spans = [trial.user_attrs[SECONDS] for trial in trials]
    later = [(span[0], span[1:]) for span in spans if len(span) > 1]
    logs = [
        math.log(seconds_of_epoch) - fmean(map(math.log, rest))
        for _, rest in later
        for seconds_of_epoch in rest
        if len(rest) > 1
    ]
    beside = [
        seconds - sum(span)
        for trial, span in zip(trials, spans, strict=True)
        if (seconds := took(trial)) is not None
    ]
    return MeasuredTimes(
        epoch=[fmean(span[1:] or span) for span in spans],
        first=max(0.0, median(first - fmean(rest) for first, rest in later)) if later else 0.0,
        actor=max(0.0, beside[0]) if beside else 0.0,
        spread=pstdev(logs) if len(logs) > 1 else 0.0,
    )
