"""Simulated searches beside what can be worked out by hand: times, the driver, failures, the rule."""

from random import Random
from statistics import fmean
from typing import Any

import pytest

from fissura.core.errors import SpecError
from fissura.operations.forecast.forecast import (
    Forecast,
    ForecastQuestion,
    Lanes,
    Range,
    best_of,
    forecast,
    play,
    spread_of,
)
from fissura.operations.forecast.learning_curves import Assumed, Course
from fissura.operations.forecast.simulation import Costs
from fissura.spaces.space import Asha, RunAll

FREE = Costs(begin=0, data=0, node=0, actor=0, first=0, suggest=0, trial=0, result=0, finish=0)


def question(**changes: Any) -> ForecastQuestion:
    plain: dict[str, Any] = {
        "trials": 6, "epochs": 4, "scheduler": RunAll(), "nodes": 1, "costs": FREE, "repetitions": 5,
        "draw": lambda number, random: Course(10.0, 4, (0.0,)),
    }  # fmt: skip
    return ForecastQuestion(**(plain | changes))


def lanes(concurrent: int, *, slower: float = 1.0) -> Lanes:
    return Lanes(concurrent, 1, 0.0, slower)


@pytest.mark.parametrize(("concurrent", "seconds"), [(1, 240), (2, 120), (4, 80), (6, 40)])
def test_trials_of_one_length_fill_the_slots_one_after_the_other(concurrent: int, seconds: float) -> None:
    played = play(question(), lanes(concurrent), repetition=0)
    assert (played.seconds, played.epochs, played.training) == (pytest.approx(seconds), 24, 240)


def test_what_is_paid_once_is_paid_once() -> None:
    costs = Costs(
        begin=5, data=7, node=100, actor=3, first=2, suggest=0.5, trial=0.25, result=0.125, finish=11
    )
    played = play(question(costs=costs, trials=2), lanes(1), repetition=0)
    # an actor serves both trials, each of which has a first epoch
    assert played.seconds == pytest.approx(5 + 7 + 100 + 3 + 2 * (2 + 0.75 + 4 * 10.125) + 11)


def test_other_nodes_have_to_get_the_images_first() -> None:
    costs = FREE.model_copy(update={"data": 50.0})
    assert play(question(costs=costs, trials=1), lanes(1), repetition=0).seconds == pytest.approx(90)
    two = play(question(costs=costs, trials=3, nodes=2), lanes(2), repetition=0)
    assert two.seconds == pytest.approx(140)


def test_a_driver_that_is_busy_for_a_second_a_result_is_what_a_thousand_trials_wait_for() -> None:
    costs = FREE.model_copy(update={"result": 1.0})
    played = play(question(costs=costs, trials=1000), lanes(1000), repetition=0)
    assert played.driver == 4000
    assert 4000 <= played.seconds <= 4011


def test_the_time_of_a_suggestion_grows_up_to_its_bound() -> None:
    costs = FREE.model_copy(update={"suggest": 1.0, "suggest_growth": 0.5, "suggest_bound": 3})
    played = play(question(costs=costs), lanes(1), repetition=0)
    assert played.suggesting == pytest.approx(sum(1 + 0.5 * min(known, 3) for known in range(6)))


def test_the_paper_s_trial_is_never_stopped_and_weak_ones_are_at_the_rungs() -> None:
    values = (0.0, 1.0, 2.0, 0.5, 3.0, 0.25)
    asked = question(
        scheduler=Asha(grace=2, reduction=2),
        draw=lambda number, random: Course(10.0, 4, (values[number],) * 4),
    )
    played = play(asked, lanes(1), repetition=0)
    # at two epochs the fourth falls behind 1, the sixth behind 1 again
    assert (played.stopped, played.epochs) == (2, 4 * 4 + 2 * 2)


def test_a_halving_search_goes_on_with_about_the_share_that_the_rule_names() -> None:
    draw = Assumed((1.0,), 27, startup=10**6).draw
    asked = question(trials=2000, epochs=27, scheduler=Asha(grace=3, reduction=3), draw=draw)
    played = play(asked, lanes(8), repetition=0)
    # 3 epochs each, 6 more for a third, 18 more for a ninth
    assert played.epochs / 2000 == pytest.approx(3 + 6 / 3 + 18 / 9, rel=0.1)


def test_a_lost_node_costs_its_epochs_in_flight_and_no_other() -> None:
    costs = FREE.model_copy(update={"node": 30.0, "actor": 5.0})
    asked = question(trials=40, costs=costs, nodes=4, losses=20.0)
    played = [play(asked, lanes(8), repetition=number) for number in range(20)]
    calm = play(question(trials=40, costs=costs, nodes=4), lanes(8), repetition=0)
    assert all(one.epochs == 160 for one in played)
    assert fmean(one.node_losses for one in played) > 1
    assert all(one.epochs_lost <= 2 * one.node_losses for one in played)
    assert all(one.training == pytest.approx(calm.training) for one in played)
    assert fmean(one.seconds for one in played) > calm.seconds


def test_a_loss_rate_that_no_search_survives_is_refused() -> None:
    with pytest.raises(SpecError, match="give a lower rate"):
        play(
            question(losses=3600.0, draw=lambda number, random: Course(1e4, 4, (0.0,))),
            lanes(1),
            repetition=0,
        )


def test_a_forecast_follows_from_its_seed_and_gives_a_range() -> None:
    asked = question(
        trials=30, scheduler=Asha(grace=1, reduction=2), repetitions=40, spread=0.5, price=2.0,
        draw=Assumed((5.0, 10.0, 20.0), 4, startup=5).draw,
    )  # fmt: skip
    one = forecast(asked, lanes(4))
    assert one == forecast(asked, lanes(4))
    assert one.seconds.low < one.seconds.median < one.seconds.high
    assert 0.5 < one.utilisation <= 1
    assert one.cost is not None
    assert one.cost.median == pytest.approx(one.seconds.median / 3600 * 2)
    assert one.held_hours == pytest.approx(4 * one.node_hours)
    slower = forecast(asked, lanes(4, slower=2.0))
    assert slower.seconds.median == pytest.approx(2 * one.seconds.median, rel=0.01)


def test_the_best_is_the_least_number_of_trials_at_a_time_that_is_about_as_quick() -> None:
    def one(concurrent: int, seconds: float) -> Forecast:
        around = Range(seconds, seconds, seconds)
        return Forecast(lanes(concurrent), around, around, 1, 1, 1, 0, 0, None)

    assert best_of([one(1, 200), one(2, 103), one(4, 100), one(8, 101)]).lanes.concurrent == 2


def test_a_range_holds_nine_in_ten() -> None:
    found = spread_of(list(range(1, 102)))
    assert (found.median, found.low, found.high) == (51, 6, 96)


def test_a_curve_is_drawn_from_its_number_s_part_of_the_search() -> None:
    draw = Assumed((1.0,), 1, startup=500).draw
    random = Random(0)
    early = fmean(draw(0, random).value(1) for _ in range(2000))
    late = fmean(draw(500, random).value(1) for _ in range(2000))
    assert early == pytest.approx(0, abs=0.1)
    assert late == pytest.approx(0.56, abs=0.1), "the better of two standard normals"
