"""The verb `plan`, as a function: forecasts what a search will take."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fissura.api.arguments import AnyPath, Data, fixed_of, maybe_path, named_in, path_of
from fissura.core.brief import Brief
from fissura.core.errors import ResourceError, SpaceError, SpecError, UserError
from fissura.core.progress import Say, silent
from fissura.core.text import count

if TYPE_CHECKING:
    from fissura.data.datasets import Named
    from fissura.distributed.cluster import Resources
    from fissura.distributed.preflight import Hardware
    from fissura.operations.forecast.basis import Basis
    from fissura.operations.forecast.forecast import Forecast, Lanes
    from fissura.spaces.space import LoadedSpace

NODE_SECONDS = 180.0
"""Until a cloud node has booted, installed fissura and joined."""


@dataclass(frozen=True)
class Nodes:
    """The cluster of a plan: the number of nodes, each node's CPUs and GPUs (None: this machine's), seconds
    until a node is up (None: 0 for one node, else 180), and per node and hour: failures, preemptions of a
    spot node, prices."""

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
    """Where an epoch's seconds come from: a `study`, measuring `measure` settings here, or `seconds`."""

    study: AnyPath | None = None
    measure: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, repr=False)
class Planned(Brief):
    """A plan: `forecasts` by rising number of trials at a time, the `best` of them, the same on `spot` nodes
    if they have a price, and the `basis` of its times."""

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
        """The search, the basis of its times, and the best number of trials at a time."""
        from fissura.operations.forecast.basis import typical

        lanes, seconds = self.best.lanes, self.best.seconds
        hours = " to ".join(f"{value / 3600:.2g}" for value in (seconds.low, seconds.high))
        return [
            f"{self.space}: {count(self.trials, 'trial')} of at most {count(self.epochs, 'epoch')},"
            f" {self.scheduler}",
            f"  {typical(self.epoch_seconds)}: {self.basis}",
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
    """Simulates the search of `space` on `nodes` many times and forecasts what it will take.

    `concurrent` fixes the number of trials at a time; by default several are compared and the best is chosen.
    `data` is what `Times.measure` trains on.

    Raises:
        UserError: the request breaks a rule; with one line a problem.
    """
    from fissura.distributed.environment import prepare_environment
    from fissura.spaces.load import check_profile

    cluster, datasets = nodes or Nodes(), named_in(data)
    _check(cluster, times, datasets)
    check_profile(space, profile)
    prepare_environment(None)
    from fissura.distributed.preflight import Hardware
    from fissura.operations.forecast.forecast import ForecastQuestion, best_of, forecast

    resources = _resources(cluster)
    loaded = _space(str(space), profile=profile, fixed=fixed_of(fixed), gpus=resources.gpus)
    count = trials or loaded.definition.trials
    epochs = loaded.longest
    candidates = _lanes(resources, Hardware(None, concurrent, cpus_per_trial, gpus_per_trial), trials=count)
    basis = _basis(
        loaded,
        times,
        data=datasets,
        cache=maybe_path(cache),
        lanes=candidates,
        nodes=cluster.nodes,
        seed=seed,
        say=say,
    )
    start = cluster.start_seconds
    if start is None:
        start = NODE_SECONDS if cluster.nodes > 1 else 0.0
    question = ForecastQuestion(
        trials=count,
        epochs=epochs,
        scheduler=loaded.definition.scheduler,
        draw=basis.draw,
        nodes=cluster.nodes,
        costs=basis.costs.model_copy(update={"node": start}),
        losses=cluster.failures,
        spread=basis.spread,
        price=cluster.price,
        repetitions=repetitions,
        seed=seed,
    )
    forecasts = tuple(forecast(question, basis.paced(lanes)) for lanes in candidates)
    best, spot = best_of(forecasts), None
    if cluster.spot_price is not None:
        spot_question = replace(
            question, price=cluster.spot_price, losses=cluster.failures + cluster.preemptions
        )
        spot = forecast(spot_question, best.lanes)
    notes = list(loaded.notes)
    if loaded.definition.scheduler.kind == "median":
        notes.append(
            "the median rule is not simulated: each trial runs to its end here, so a search is quicker"
        )
    return Planned(
        space=loaded.name,
        trials=count,
        epochs=epochs,
        scheduler=loaded.definition.scheduler.kind,
        nodes=cluster,
        basis=basis.text,
        epoch_seconds=basis.seconds,
        notes=tuple(notes),
        forecasts=forecasts,
        best=best,
        spot=spot,
    )


def _check(nodes: Nodes, times: Times, data: "Sequence[Named]") -> None:
    problems = []
    options = [
        name
        for name, value in (
            ("--study", times.study),
            ("--measure", times.measure),
            ("--epoch-seconds", times.seconds),
        )
        if value is not None
    ]
    if len(options) != 1:
        given = f"{' and '.join(options)} are given" if options else "none is given"
        problems.append(
            "an epoch's time comes from one of --study STUDY, --measure N and --epoch-seconds X, and"
            f" {given}; give one"
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
    """The numbers of trials at a time to compare: the requested one, or powers of two, the default of a
    search, and the most that fit."""
    from fissura.distributed.preflight import plan_slots
    from fissura.operations.forecast.forecast import Lanes

    default = plan_slots(resources, hardware, trials=trials)
    counts = {default.concurrent}
    if hardware.concurrent is None:
        counts |= {2**power for power in range(20) if 2**power <= trials} | {min(trials, resources.cpus)}
    lanes = []
    for concurrent in sorted(counts):
        try:
            slots = plan_slots(resources, replace(hardware, concurrent=concurrent), trials=trials)
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

    epochs = space.longest
    if times.study is not None:
        return basis.basis_of_study(path_of(times.study), space, epochs=epochs)
    if times.seconds is not None:
        return basis.basis_of_seconds(times.seconds, space, cpus=lanes[-1].cpus)
    from fissura.data.cache import default_cache
    from fissura.data.datasets import parse_datasets
    from fissura.data.trainable import prepare_training
    from fissura.segmentation.recipe import segmenter_of
    from fissura.training.runtime import pick_device, usable_cpus

    recipe = segmenter_of(space.recipe_for(space.paper_point()))
    started = time.monotonic()
    folder = cache or default_cache()
    prepared = prepare_training(parse_datasets(data), resize=recipe.data.resize, directory=folder)
    # prepared here by now; other nodes must still do it
    seconds = time.monotonic() - started if nodes > 1 else 0.0
    gpus = int(pick_device("auto").type == "cuda")
    if lanes[0].gpus and not gpus:
        raise UserError(
            "--measure: trials would run on GPUs, and this machine has none to measure on; run it on a node"
            " with one, or give --study or --epoch-seconds"
        )
    measured = basis.basis_of_measurement(
        space,
        prepared,
        settings=times.measure or 1,
        most_cpus=usable_cpus(),
        gpus=gpus,
        seed=seed,
        say=say,
    )
    return replace(measured, costs=measured.costs.model_copy(update={"data": seconds}))
