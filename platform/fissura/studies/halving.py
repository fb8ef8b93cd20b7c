"""Asynchronous successive halving (Li et al., MLSys 2020), by Ray Tune's rule: the searches' own and the
forecast's."""

import math
from bisect import insort
from collections.abc import Hashable

import numpy as np


class Halving:
    """Says of each trial, at the epochs `grace * reduction ** k` up to `longest`, whether it is to stop.

    At such a rung the values of all trials that came before are known, and a trial stops where its own is
    below their quantile `1 - 1 / reduction`, interpolated linearly. The first trial at a rung goes on.
    """

    def __init__(self, *, grace: int, reduction: int, longest: int) -> None:
        # Ray's arithmetic, rounding and all: a rung more or less would be another rule
        count = int(np.log(longest / grace) / np.log(reduction) + 1)
        self.rungs = tuple(grace * reduction**k for k in range(count))
        self._quantile = (1 - 1 / reduction) * 100 / 100
        self._seen: dict[int, set[Hashable]] = {rung: set() for rung in self.rungs}
        self._values: dict[int, list[float]] = {rung: [] for rung in self.rungs}

    def falls_behind(self, trial: Hashable, *, epoch: int, value: float) -> bool:
        """Whether the trial is to stop with this value after this epoch; higher is better.

        The value is kept at the highest rung that the trial has reached and has no value at.
        """
        for rung in reversed(self.rungs):
            if epoch >= rung and trial not in self._seen[rung]:
                cutoff = self.cutoff(rung)
                self.record(trial, rung=rung, value=value)
                return cutoff is not None and value < cutoff
        return False

    def record(self, trial: Hashable, *, rung: int, value: float) -> None:
        """Puts a trial's value on a rung; one that is not a number counts for nothing there."""
        self._seen[rung].add(trial)
        if not math.isnan(value):
            insort(self._values[rung], value)

    def cutoff(self, rung: int) -> float | None:
        """What a trial must reach at the rung; None where no trial has been."""
        values = self._values[rung]
        if not values:
            return None
        place = self._quantile * (len(values) - 1)
        below = math.floor(place)
        low, high, share = values[below], values[min(below + 1, len(values) - 1)], place - below
        return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share
