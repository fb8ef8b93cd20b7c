"""Asynchronous successive halving (Li et al., MLSys 2020), by Ray Tune's rule: the searches' own and the
forecast's.

Where a training has several phases, what is compared is how far trials are in their last one: before it a
trial's value says nothing of the parameters of the last phase, and trials may enter it at different epochs.
"""

import math
from bisect import insort
from collections.abc import Hashable
from numbers import Integral

import numpy as np

ROUNDING = 1e-9


def progress(epoch: int, *, phase: range, grace: float) -> float:
    """How far a trial is after an epoch (counted from 1) in its last phase, whose epochs, counted from 0, are
    `phase`, in the unit of `grace`: epochs where that is a whole number, else a share of the phase.

    Before the phase it is 0 or less.
    """
    done = epoch - phase.start
    return done if isinstance(grace, Integral) else done / len(phase) + ROUNDING


class Halving:
    """Says of each trial, at the rungs `grace * reduction ** k` of its last phase, whether it is to stop.

    A whole `grace` is in epochs, and the rungs go up to `longest`; a share, above 0 and below 1, is one of
    the epochs of the trial's last phase. At a rung the values of all trials that came before are known, and a
    trial stops where its own is below their quantile `1 - 1 / reduction`, interpolated linearly. The first
    trial at a rung goes on.
    """

    def __init__(self, *, grace: float, reduction: int, longest: int) -> None:
        self._grace, self._whole = grace, range(longest)
        highest = max(longest, grace) if isinstance(grace, Integral) else 1.0
        # Ray's arithmetic, rounding and all: a rung more or less would be another rule
        count = int(np.log(highest / grace) / np.log(reduction) + 1)
        self.rungs = tuple(grace * reduction**k for k in range(count))
        self._quantile = (1 - 1 / reduction) * 100 / 100
        self._seen: dict[float, set[Hashable]] = {rung: set() for rung in self.rungs}
        self._values: dict[float, list[float]] = {rung: [] for rung in self.rungs}

    def reached(self, epoch: int, *, phase: range | None = None) -> list[float]:
        """The rungs that a trial has reached after an epoch, the highest first; `phase` are the epochs of its
        last phase, None: all."""
        done = progress(epoch, phase=phase or self._whole, grace=self._grace)
        return [rung for rung in reversed(self.rungs) if done >= rung]

    def falls_behind(self, trial: Hashable, *, epoch: int, value: float, phase: range | None = None) -> bool:
        """Whether the trial is to stop with this value after this epoch; higher is better.

        The value is kept at the highest rung that the trial has reached and has no value at.
        """
        for rung in self.reached(epoch, phase=phase):
            if trial not in self._seen[rung]:
                cutoff = self.cutoff(rung)
                self.record(trial, rung=rung, value=value)
                return cutoff is not None and value < cutoff
        return False

    def record(self, trial: Hashable, *, rung: float, value: float) -> None:
        """Puts a trial's value on a rung; one that is not a number counts for nothing there."""
        self._seen[rung].add(trial)
        if not math.isnan(value):
            insort(self._values[rung], value)

    def cutoff(self, rung: float) -> float | None:
        """What a trial must reach at the rung; None where no trial has been."""
        values = self._values[rung]
        if not values:
            return None
        position = self._quantile * (len(values) - 1)
        below = math.floor(position)
        low, high, share = values[below], values[min(below + 1, len(values) - 1)], position - below
        return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share
