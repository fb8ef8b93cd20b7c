"""What is looked at before a search begins: everything that would make it fail later, all at once."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fissura.core.errors import ResourceError
from fissura.distributed.cluster import Resources
from fissura.models import check_weights
from fissura.models.weights import Hub
from fissura.segmentation.recipe import Recipe, segmenter_of
from fissura.spaces.compile import Point
from fissura.spaces.distributions import Choice
from fissura.spaces.fields import ABSENT
from fissura.spaces.space import LoadedSpace
from fissura.studies.results import KEPT_RUNS
from fissura.training.experiment import Experiment

MAX_LOCAL_TRIALS = 4
MOST_NETWORKS = 512
USUAL_HUB = Hub()


@dataclass(frozen=True)
class Hardware:
    """What a search may use: a cluster's address, or None for this machine; None elsewhere: chosen so that
    nothing idles. A trial's CPUs and GPUs are shared by its workers."""

    address: str | None = None
    concurrent: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    workers_per_trial: int = 1


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and what each worker of one is given."""

    concurrent: int
    cpus: int
    gpus: float
    workers: int = 1


def check_all_weights(space: LoadedSpace, *, hub: Hub = USUAL_HUB) -> None:
    """Looks whether the pretrained weights of every network of the space can be had, and those that one which
    is learnt from the user's images starts from.

    Raises:
        WeightsError: with one line a network whose weights cannot.
    """
    check_weights(
        *dict.fromkeys(wanted for recipe in _recipes(space) for wanted in recipe.weights_wanted), hub=hub
    )


def _recipes(space: LoadedSpace) -> Iterator[Experiment]:
    """The recipes that the choices of networks lead to, each with each; `MOST_NETWORKS` at most."""
    points: list[Point] = [{}]
    for path, distribution in space.distributions.items():
        if path.startswith(space.recipe.networks) and isinstance(distribution, Choice):
            points = [
                {**point, path: value} if value is not ABSENT else point
                for point in points
                for value in (distribution.values if path in space.completed(point) else (ABSENT,))
            ]
            points = points[:: -(-len(points) // MOST_NETWORKS)]
    for point in points:
        recipe, _ = space.attempt(space.completed(point))
        if recipe is not None:
            yield recipe


def plan_slots(resources: Resources, hardware: Hardware, *, trials: int) -> Slots:
    """How the cluster is shared among `trials` trials.

    Raises:
        ResourceError: a trial fits no node, or not so many fit the cluster.
    """
    if hardware.workers_per_trial > 1:
        return _plan_workers(resources, hardware, trials=trials)
    gpus = hardware.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if resources.gpus else 0.0
    by_gpu = int(resources.gpus / gpus) if gpus else resources.cpus
    by_cpu = resources.cpus // hardware.cpus_per_trial if hardware.cpus_per_trial else resources.cpus
    room = min(by_gpu, by_cpu)
    # many small trials at once starve a sampler of results to learn from
    usual = room if gpus else min(room, MAX_LOCAL_TRIALS * resources.nodes)
    concurrent = hardware.concurrent or max(1, min(usual, trials))
    cpus = hardware.cpus_per_trial or max(1, min(resources.cpus // concurrent, resources.node_cpus))
    problems = []
    if cpus > resources.node_cpus:
        problems.append(
            f"--cpus-per-trial {cpus}: a trial runs on one node, and the largest has {resources.node_cpus}"
            f" CPUs; ask for"
            f" {resources.node_cpus} or fewer"
        )
    if gpus > resources.node_gpus:
        problems.append(
            f"--gpus-per-trial {gpus:g}: a trial runs on one node, and the most that one has is"
            f" {resources.node_gpus} GPUs;"
            " ask for fewer, or 0 to train on CPUs"
        )
    if not problems and concurrent > room:
        problems.append(
            f"--concurrency {concurrent}: {concurrent} trials of {cpus} CPUs and {gpus:g} GPUs need"
            f" {concurrent * cpus} CPUs"
            f" and {concurrent * gpus:g} GPUs, the cluster has {resources.cpus} and {resources.gpus}; ask"
            f" for {room} or fewer"
        )
    if problems:
        raise ResourceError(*problems)
    return Slots(concurrent, cpus, gpus)


def _plan_workers(resources: Resources, hardware: Hardware, *, trials: int) -> Slots:
    """As `plan_slots`, of trials whose workers may lie on several nodes, each worker on one."""
    workers, asked = hardware.workers_per_trial, hardware.cpus_per_trial
    gpus = min(1, resources.gpus) if hardware.gpus_per_trial is None else int(hardware.gpus_per_trial > 0)
    problems = []
    if asked is not None and asked % workers:
        problems.append(
            f"--cpus-per-trial {asked}: {workers} workers share a trial's CPUs evenly; ask for a multiple of"
            f" {workers}"
        )
    if hardware.gpus_per_trial not in (None, 0, workers):
        problems.append(
            f"--gpus-per-trial {hardware.gpus_per_trial:g}: {workers} workers take a GPU each; ask for"
            f" {workers}, or for 0 to train on CPUs"
        )
    if problems:
        raise ResourceError(*problems)
    least = asked // workers if asked else 1
    room = resources.room(cpus=least, gpus=gpus)
    usual = room // workers if gpus else min(room, MAX_LOCAL_TRIALS * resources.nodes) // workers
    concurrent = hardware.concurrent or max(1, min(usual, trials))
    if workers * concurrent > room:
        fits = room // workers
        fewer = f"--concurrency {fits}" if fits else _counted(room, "worker")
        raise ResourceError(
            f"--workers-per-trial {workers}: {_counted(concurrent, 'trial')} at a time need room for"
            f" {workers * concurrent} workers of {least} CPUs and {gpus} GPUs, each on one node; the"
            f" cluster's {_counted(resources.nodes, 'node')} have room for {room}; ask for {fewer} or fewer"
        )
    cpus = least if asked else resources.most_cpus(workers=workers * concurrent, gpus=gpus)
    return Slots(concurrent, cpus, float(gpus), workers)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def check_batches(space: LoadedSpace, *, workers: int) -> None:
    """Looks whether each of a trial's workers has an image of every step's batch.

    Raises:
        ResourceError: a batch that the space may choose is smaller than the number of workers.
    """
    chosen = space.distributions.get("data.batch_size")
    paper = segmenter_of(space.recipe_for(space.paper_point())).data.batch_size
    smallest = min(
        [paper, *(value for value in (chosen.corners() if chosen else ()) if isinstance(value, int))]
    )
    if smallest < workers:
        raise ResourceError(
            f"--workers-per-trial {workers}: a step's batch is shared by the workers, and the space has"
            f" batches of {smallest}; ask for {smallest} or fewer, or set data.batch_size={workers}"
        )


def check_disk(recipe: Recipe, *, storage: Path, slots: Slots) -> None:
    """Looks whether the storage has room for the checkpoints that a search keeps.

    Raises:
        ResourceError: it has not.
    """
    network = recipe.model.model_copy(update={"weights": "none"}).build()
    size = sum(parameter.numel() * 4 for parameter in network.parameters())
    # a running trial keeps its best weights, and a state of weights and two moments, twice while it is
    # replaced
    need = size * (KEPT_RUNS + slots.concurrent * (2 + 2 * 3))
    existing = next(folder for folder in (storage, *storage.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if need > free:
        raise ResourceError(
            f"--storage {storage}: the checkpoints of this search need {need / 2**30:.1f} GiB"
            f" ({size / 2**20:.0f} MiB a"
            f" network, {slots.concurrent} trials at a time), {free / 2**30:.1f} GiB are free; free some,"
            f" name another"
            " --storage, or lower --concurrency"
        )
