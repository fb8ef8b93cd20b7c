"""The verb `plan`: what a search will take, before it is begun."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fissura.api.given import AnyPath, Data, fixed_of, maybe_path, named_in, path_of
from fissura.core.brief import Brief
from fissura.core.errors import ResourceError, SpaceError, SpecError, UserError
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.data.datasets import Named
    from fissura.distributed.cluster import Resources
    from fissura.distributed.preflight import Hardware
    from fissura.operations.forecast.basis import Basis
    from fissura.operations.forecast.forecast import Forecast, Lanes
    from fissura.spaces.space import LoadedSpace

NODE_SECONDS = 180.0
"""Until a node of a cloud is up: booted, fissura installed, joined."""


@dataclass(frozen=True)
class Nodes:
    """The cluster that a plan is for: nodes of so many CPUs and GPUs (None: this machine's), seconds until
    one is up (None: 0 for one node, else 180), how often one fails and a spot node is taken, an hour, what
    one costs an hour."""

    nodes: int = 1
    cpus: int | None = None
    gpus: int | None = None
    start_seconds: float | None = None
    failures: float = 0.0
    preemptions: float = 0.0
    price: float | None = None
    spot_price: float | None = None


@dataclass(frozen=True)
class Times:
    """Where an epoch's seconds come from, one of three: a `study`, `measure` settings here, or `seconds`."""

    study: AnyPath | None = None
    measure: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, repr=False)
class Planned(Brief):
    """A plan: `forecasts` by rising number of trials at a time, the best of them, the same on spot nodes
    where they have a price, and what it stands on."""

    space: str
    trials: int
    epochs: int
    scheduler: str
    nodes: Nodes
    basis: str
    epoch_seconds: tuple[float, ...]
    notes: tuple[str, ...]
    forecasts: "tuple[Forecast, ...]"
    best: "Forecast"
    spot: "Forecast | None"

    def lines(self) -> list[str]:
        """The search, what it stands on, and the best number of trials at a time."""
        lanes, seconds = self.best.lanes, self.best.seconds
        hours = " to ".join(f"{value / 3600:.2g}" for value in (seconds.low, seconds.high))
        return [
            f"{self.space}: {self.trials} trials of at most {self.epochs} epochs, {self.scheduler}",
            f"  {self.basis}",
            f"  {lanes.concurrent} trials at a time: {seconds.median / 3600:.2g} h ({hours})",
        ]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each number of trials at a time."""
        return [
            {
                "concurrent": forecast.lanes.concurrent,
                "cpus": forecast.lanes.cpus,
                "gpus": forecast.lanes.gpus,
                "seconds": forecast.seconds.median,
                "seconds_low": forecast.seconds.low,
                "seconds_high": forecast.seconds.high,
                "node_hours": forecast.node_hours,
                "utilisation": forecast.utilisation,
                "cost": forecast.cost.median if forecast.cost else None,
            }
            for forecast in self.forecasts
        ]


def plan(
    space: AnyPath,
    *,
    times: Times,
    data: Data = (),
    trials: int | None = None,
    profile: str = "auto",
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    nodes: Nodes | None = None,
    concurrent: int | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    repetitions: int = 100,
    cache: AnyPath | None = None,
    say: Say = silent,
) -> Planned:
    """Simulates the search of `space` on `nodes`, many times, and says what it will take.

    `concurrent` is the one number of trials at a time to look at; by default several are, and the best is
    chosen. `data` is what `Times.measure` trains on.

    Raises:
        UserError: the request breaks a rule; with one line a problem.
    """
    from fissura.distributed.environment import prepare_environment
    from fissura.spaces.load import check_profile

    asked, named = nodes or Nodes(), named_in(data)
    _check(asked, times, named)
    check_profile(space, profile)
    prepare_environment(None)
    from fissura.distributed.preflight import Hardware
    from fissura.operations.forecast.forecast import ForecastQuestion, best_of, forecast

    resources = _resources(asked)
    loaded = _space(str(space), profile=profile, fixed=fixed_of(fixed), gpus=resources.gpus)
    count = trials or loaded.definition.trials
    length = loaded.longest
    lanes = _lanes(resources, Hardware(None, concurrent, cpus_per_trial, gpus_per_trial), trials=count)
    basis = _basis(
        loaded, times, data=named, cache=maybe_path(cache), lanes=lanes, nodes=asked.nodes, seed=seed, say=say
    )
    start = asked.start_seconds
    if start is None:
        start = NODE_SECONDS if asked.nodes > 1 else 0.0
    question = ForecastQuestion(
        trials=count,
        epochs=length,
        scheduler=loaded.definition.scheduler,
        draw=basis.draw,
        nodes=asked.nodes,
        costs=basis.costs.model_copy(update={"node": start}),
        losses=asked.failures,
        spread=basis.spread,
        price=asked.price,
        repetitions=repetitions,
        seed=seed,
    )
    found = tuple(forecast(question, basis.paced(one)) for one in lanes)
    best, spot = best_of(found), None
    if asked.spot_price is not None:
        risky = replace(question, price=asked.spot_price, losses=asked.failures + asked.preemptions)
        spot = forecast(risky, best.lanes)
    notes = list(loaded.notes)
    if loaded.definition.scheduler.kind == "median":
        notes.append(
            "the median rule is not simulated: each trial runs to its end here, so a search is quicker"
        )
    return Planned(
        space=loaded.name,
        trials=count,
        epochs=length,
        scheduler=loaded.definition.scheduler.kind,
        nodes=asked,
        basis=basis.text,
        epoch_seconds=basis.seconds,
        notes=tuple(notes),
        forecasts=found,
        best=best,
        spot=spot,
    )


def _check(nodes: Nodes, times: Times, data: "Sequence[Named]") -> None:
    problems = []
    given = [
        name
        for name, value in (
            ("--study", times.study),
            ("--measure", times.measure),
            ("--epoch-seconds", times.seconds),
        )
        if value is not None
    ]
    if len(given) != 1:
        told = f"{' and '.join(given)} are given" if given else "none is given"
        problems.append(
            f"an epoch's time comes from one of --study STUDY, --measure N and --epoch-seconds X, and {told};"
            " give one"
        )
    if times.measure is not None and not data:
        problems.append("--measure: trains for some steps on your images; name them with --data KIND:ROOT")
    if times.measure is None and data:
        problems.append(f"--data {data[0]}: only --measure trains; leave it out, or give --measure N")
    if nodes.preemptions and nodes.spot_price is None:
        problems.append(
            f"--preemptions {nodes.preemptions:g}: is about spot nodes; give their --spot-price too, or write"
            " --failures"
        )
    if problems:
        raise SpecError(*problems)


def _resources(nodes: Nodes) -> "Resources":
    from fissura.distributed.cluster import Resources, this_machine

    here = this_machine()
    cpus = here.node_cpus if nodes.cpus is None else nodes.cpus
    gpus = here.node_gpus if nodes.gpus is None else nodes.gpus
    return Resources(nodes.nodes * cpus, nodes.nodes * gpus, nodes.nodes, cpus, gpus)


def _space(name: str, *, profile: str, fixed: Mapping[str, Any], gpus: int) -> "LoadedSpace":
    from fissura.spaces.load import load_space

    auto = "gpu" if gpus else "cpu"
    if profile == "auto":
        profile = auto if auto in load_space(name).definition.profiles else "none"
    space = load_space(name, profile=None if profile == "none" else profile, fixed=fixed)
    if space.recipe.no_plan:
        raise SpaceError(f"{name}: {space.recipe.no_plan}; a plan is for a search of segmentation")
    return space


def _lanes(resources: "Resources", hardware: "Hardware", *, trials: int) -> "list[Lanes]":
    """The numbers of trials at a time to look at: the one that is asked for, or powers of two, what a search
    would take by itself, and all that there is room for."""
    from fissura.distributed.preflight import plan_slots
    from fissura.operations.forecast.forecast import Lanes

    usual = plan_slots(resources, hardware, trials=trials)
    counts = {usual.concurrent}
    if hardware.concurrent is None:
        counts |= {2**power for power in range(20) if 2**power <= trials} | {min(trials, resources.cpus)}
    lanes = []
    for count in sorted(counts):
        try:
            slots = plan_slots(resources, replace(hardware, concurrent=count), trials=trials)
        except ResourceError:
            continue
        lanes.append(Lanes(slots.concurrent, slots.cpus, slots.gpus))
    return lanes


def _basis(
    space: "LoadedSpace",
    times: Times,
    *,
    data: "Sequence[Named]",
    cache: Path | None,
    lanes: "Sequence[Lanes]",
    nodes: int,
    seed: int,
    say: Say,
) -> "Basis":
    from fissura.operations.forecast import basis

    length = space.longest
    if times.study is not None:
        return basis.basis_of_study(path_of(times.study), space, epochs=length)
    if times.seconds is not None:
        return basis.basis_of_seconds(times.seconds, space, cpus=lanes[-1].cpus)
    from fissura.data.cache import default_cache
    from fissura.data.datasets import parse_datasets
    from fissura.data.trainable import prepare_training
    from fissura.segmentation.recipe import segmenter_of
    from fissura.training.runtime import pick_device, usable_cpus

    recipe = segmenter_of(space.recipe_for(space.paper_point()))
    begin = time.monotonic()
    folder = cache or default_cache()
    prepared = prepare_training(parse_datasets(data), resize=recipe.data.resize, directory=folder)
    # here they are prepared now; other nodes have it before them
    seconds = time.monotonic() - begin if nodes > 1 else 0.0
    gpus = int(pick_device("auto").type == "cuda")
    if lanes[0].gpus and not gpus:
        raise UserError(
            "--measure: trials would run on GPUs, and this machine has none to measure on; run it on a node"
            " with one, or give --study or --epoch-seconds"
        )
    found = basis.basis_of_measurement(
        space,
        prepared,
        settings=times.measure or 1,
        most_cpus=usable_cpus(),
        gpus=gpus,
        seed=seed,
        say=say,
    )
    return replace(found, costs=found.costs.model_copy(update={"data": seconds}))
