"""What a search will take: many simulated ones, with other draws each, at several numbers of trials at a
time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean, median, quantiles

from fissura.core.seeding import derive
from fissura.operations.forecast.learning_curves import Course
from fissura.operations.forecast.simulation import Costs, Machines, Played, Simulation
from fissura.spaces.halving import Halving
from fissura.spaces.space import AnyScheduler, Asha

NEAR = 1.05
"""The best number of trials at a time is the least whose search takes at most so many times the shortest."""


@dataclass(frozen=True)
class Range:
    """Of many simulated searches: the median, and between which values nine in ten lie."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Lanes:
    """So many trials at a time, of so many CPUs and GPUs each, and how their epochs' seconds compare with the
    measured ones."""

    concurrent: int
    cpus: int
    gpus: float
    slower: float = 1.0


@dataclass(frozen=True)
class Forecast:
    """What a search with these lanes will take. `held` are the hours for which trials hold their GPUs, or
    their CPUs where they have none; `utilisation` is the share of slots and time spent in epochs."""

    lanes: Lanes
    seconds: Range
    epochs: Range
    held_hours: float
    node_hours: float
    utilisation: float
    driver: float
    epochs_lost: float
    cost: Range | None


@dataclass(frozen=True)
class ForecastQuestion:
    """What is forecast: a search of `trials` trials of at most `epochs` epochs on `nodes` nodes.

    `losses` is how often a node is lost, an hour; `spread` the scatter of an epoch's time within a trial (see
    `Machines`); `price` that of a node an hour.
    """

    trials: int
    epochs: int
    scheduler: AnyScheduler
    draw: Callable[[int, Random], Course]
    nodes: int
    costs: Costs
    losses: float = 0.0
    spread: float = 0.0
    price: float | None = None
    repetitions: int = 100
    seed: int = 0


def forecast(question: ForecastQuestion, lanes: Lanes) -> Forecast:
    """Simulates the search `repetitions` times with these lanes."""
    played = [play(question, lanes, repetition=number) for number in range(question.repetitions)]
    hours = [one.seconds / 3600 * question.nodes for one in played]
    slots = [one.seconds * lanes.concurrent for one in played]
    return Forecast(
        lanes=lanes,
        seconds=spread_of([one.seconds for one in played]),
        epochs=spread_of([one.epochs for one in played]),
        held_hours=fmean(slots) / 3600 * (lanes.gpus or lanes.cpus),
        node_hours=fmean(hours),
        utilisation=fmean(one.training / slot for one, slot in zip(played, slots, strict=True)),
        driver=fmean(one.driver / one.seconds for one in played),
        epochs_lost=fmean(one.epochs_lost for one in played),
        cost=None if question.price is None else spread_of([question.price * one for one in hours]),
    )


def play(question: ForecastQuestion, lanes: Lanes, *, repetition: int) -> Played:
    """One simulated search."""
    random = Random(derive(question.seed, "forecast", repetition))
    rule, spec = None, question.scheduler
    if isinstance(spec, Asha):
        rule = Halving(grace=spec.grace, reduction=spec.reduction, longest=question.epochs)

    def course_of(number: int) -> Course:
        course = question.draw(number, random)
        return replace(course, seconds=course.seconds * lanes.slower)

    return Simulation(
        trials=question.trials,
        epochs=question.epochs,
        machines=Machines(question.nodes, lanes.concurrent, question.losses, question.spread),
        costs=question.costs,
        course_of=course_of,
        rule=rule,
        random=random,
    ).play()


def best_of(forecasts: Sequence[Forecast]) -> Forecast:
    """The forecast with the fewest trials at a time among those that are about as quick as the quickest:
    fewer leave the sampler more results to learn from."""
    quickest = min(one.seconds.median for one in forecasts)
    near = [one for one in forecasts if one.seconds.median <= NEAR * quickest]
    return min(near, key=lambda one: one.lanes.concurrent)


def spread_of(values: Sequence[float]) -> Range:
    """The median, and the 5 % and 95 % quantiles."""
    if len(values) == 1:
        return Range(values[0], values[0], values[0])
    cuts = quantiles(values, n=20, method="inclusive")
    return Range(median(values), cuts[0], cuts[-1])
