"""The halving rule beside Ray Tune's own scheduler: the same rungs, the same decisions."""

import math
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from fissura.spaces.halving import Halving


@pytest.mark.parametrize("longest", [1, 3, 9, 24, 27, 81, 243, 1000])
@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_the_rungs_are_rays(longest: int, reduction: int) -> None:
    rays = AsyncHyperBandScheduler(max_t=longest, grace_period=1, reduction_factor=reduction)
    ours = Halving(grace=1, reduction=reduction, longest=longest)
    assert list(ours.rungs) == sorted(rung for rung, _ in rays._brackets[0]._rungs)


values = st.one_of(st.sampled_from([0.0, 0.25, 0.5, math.nan]), st.floats(-1, 1, width=32))


@given(
    results=st.lists(st.tuples(st.integers(0, 30), values), min_size=1, max_size=80),
    reduction=st.sampled_from([2, 3, 4]),
    grace=st.integers(1, 3),
)
def test_each_decision_is_rays(results: list[tuple[int, float]], reduction: int, grace: int) -> None:
    rays = AsyncHyperBandScheduler(
        time_attr="epoch", metric="f1", mode="max", max_t=100, grace_period=grace, reduction_factor=reduction
    )
    ours = Halving(grace=grace, reduction=reduction, longest=100)
    trials: dict[int, Any] = {}
    epochs: dict[int, int] = {}
    for number, value in results:
        if number not in trials:
            trials[number] = Trial("fissura", stub=True)
            rays.on_trial_add(None, trials[number])
        epochs[number] = epochs.get(number, 0) + 1
        with warnings.catch_warnings(action="ignore"):  # of a rung where no value is a number
            theirs = rays.on_trial_result(None, trials[number], {"epoch": epochs[number], "f1": value})
        stops = ours.falls_behind(trials[number].trial_id, epoch=epochs[number], value=value)
        assert stops == (theirs == "STOP")
