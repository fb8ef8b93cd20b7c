"""Forecasts a search from many simulated ones, at several numbers of trials at a time."""

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
"""The best number of trials at a time is the smallest within this factor of the shortest search."""


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
    searches = [play(question, lanes, repetition=number) for number in range(question.repetitions)]
    hours = [search.seconds / 3600 * question.nodes for search in searches]
    slots = [search.seconds * lanes.concurrent for search in searches]
    return Forecast(
        lanes=lanes,
        seconds=spread_of([search.seconds for search in searches]),
        epochs=spread_of([search.epochs for search in searches]),
        held_hours=fmean(slots) / 3600 * (lanes.gpus or lanes.cpus),
        node_hours=fmean(hours),
        utilisation=fmean(search.training / slot for search, slot in zip(searches, slots, strict=True)),
        driver=fmean(search.driver / search.seconds for search in searches),
        epochs_lost=fmean(search.epochs_lost for search in searches),
        cost=None if question.price is None else spread_of([question.price * search for search in hours]),
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
    quickest = min(forecast.seconds.median for forecast in forecasts)
    near = [forecast for forecast in forecasts if forecast.seconds.median <= NEAR * quickest]
    return min(near, key=lambda forecast: forecast.lanes.concurrent)


def spread_of(values: Sequence[float]) -> Range:
    """The median, and the 5 % and 95 % quantiles."""
    if len(values) == 1:
        return Range(values[0], values[0], values[0])
    cuts = quantiles(values, n=20, method="inclusive")
    return Range(median(values), cuts[0], cuts[-1])
