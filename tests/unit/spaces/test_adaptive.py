"""The paper's adaptive rule for C and gamma, alone and as a sampler of a search."""

import math

import optuna
import pytest

from fissura.spaces.samplers.adaptive import Point, Tried, next_point
from fissura.spaces.space import Adaptive

LOW, HIGH = (1e-2, 1e-3), (1e4, 1e2)


def follow(quality, *, start: Point, steps: int, alarms=lambda point: (0.1, 0.0)) -> list[Tried]:
    """The settings that the rule tries, one after the other, until it would begin again."""
    history = [Tried(start, quality(start), *alarms(start))]
    for _ in range(steps):
        point = next_point(history, factor=4.0, least=1.15, low=LOW, high=HIGH)
        if point is None:
            break
        history.append(Tried(point, quality(point), *alarms(point)))
    return history


def hill(point: Point) -> float:
    """One summit, at C = 100 and gamma = 0.1."""
    c, gamma = point
    return -((math.log10(c) - 2) ** 2) - (math.log10(gamma) + 1) ** 2


def test_the_kind_of_error_says_which_parameter_moves_first() -> None:
    false = next_point([Tried((1.0, 1.0), 0.5, 0.3, 0.1)], factor=4, least=1.1, low=LOW, high=HIGH)
    missed = next_point([Tried((1.0, 1.0), 0.5, 0.1, 0.3)], factor=4, least=1.1, low=LOW, high=HIGH)
    assert (false, missed) == ((4.0, 1.0), (1.0, 4.0))


def test_the_direction_that_raises_f1_is_taken_and_followed() -> None:
    tried = [one.point for one in follow(hill, start=(1.0, 0.1), steps=3)]
    assert tried == [(1.0, 0.1), (4.0, 0.1), (16.0, 0.1), (64.0, 0.1)]


def test_the_rule_ends_near_the_summit_of_a_hill() -> None:
    history = follow(hill, start=(1.0, 1.0), steps=200)
    assert next_point(history, factor=4.0, least=1.15, low=LOW, high=HIGH) is None
    best = max(history, key=lambda one: one.value).point
    assert best == pytest.approx((100, 0.1), rel=0.15)
    assert len(history) < 60


def test_no_setting_is_tried_twice_and_none_leaves_the_range() -> None:
    points = [one.point for one in follow(lambda point: point[0], start=(1.0, 1.0), steps=200)]
    assert len(set(points)) == len(points)
    assert all(LOW[0] <= c <= HIGH[0] and LOW[1] <= gamma <= HIGH[1] for c, gamma in points)


def test_a_setting_after_the_end_is_a_new_beginning() -> None:
    history = follow(hill, start=(1.0, 1.0), steps=200)
    again = [*history, Tried((5.0, 5.0), -50.0, 0.0, 1.0)]
    assert next_point(again, factor=4.0, least=1.15, low=LOW, high=HIGH) == (5.0, 20.0)


def test_a_failed_setting_is_worse_than_any_other() -> None:
    history = [Tried((1.0, 1.0), -math.inf, 0.0, 0.0)]
    following = next_point(history, factor=4.0, least=1.15, low=LOW, high=HIGH)
    assert following == (4.0, 1.0)
    history.append(Tried(following, 0.2, 0.1, 0.0))
    assert next_point(history, factor=4.0, least=1.15, low=LOW, high=HIGH) == (16.0, 1.0)


def test_as_a_sampler_it_climbs_from_the_papers_setting_and_then_begins_anew() -> None:
    study = optuna.create_study(direction="maximize", sampler=Adaptive(seed=1).build())
    study.enqueue_trial({"classifier.C": 1.0, "classifier.gamma": 1.0, "whitening.kind": "zca"})

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("whitening.kind", ["none", "zca"])
        c = trial.suggest_float("classifier.C", LOW[0], HIGH[0], log=True)
        gamma = trial.suggest_float("classifier.gamma", LOW[1], HIGH[1], log=True)
        trial.set_user_attr("false_alarm_rate", 0.2)
        trial.set_user_attr("missed_alarm_rate", 0.1)
        return hill((c, gamma))

    study.optimize(objective, n_trials=60)
    assert study.trials[1].params["classifier.C"] == 4.0
    assert study.best_value > -0.01
    assert {trial.params["whitening.kind"] for trial in study.trials} == {"zca"}
    assert len({(t.params["classifier.C"], t.params["classifier.gamma"]) for t in study.trials}) == 60
