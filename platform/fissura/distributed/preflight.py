"""Checks before a search starts: finds everything that would make it fail later, all at once."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fissura.core.errors import ResourceError
from fissura.core.text import count, size
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
    """What a search may use: a cluster's address (None: this machine), and limits (None: chosen so that
    nothing idles). A trial's workers share its CPUs and GPUs."""

    address: str | None = None
    concurrent: int | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    workers_per_trial: int = 1


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and the CPUs and GPUs of each of a trial's workers."""

    concurrent: int
    cpus: int
    gpus: float
    workers: int = 1


def check_all_weights(space: LoadedSpace, *, hub: Hub = USUAL_HUB) -> None:
    """Checks that the pretrained weights of every network of the space are available, including the starting
    weights of backbones learnt from the user's images.

    Raises:
        WeightsError: one line for each network whose weights are not.
    """
    check_weights(
        *dict.fromkeys(weights for recipe in _recipes(space) for weights in recipe.weights_wanted), hub=hub
    )


def _recipes(space: LoadedSpace) -> Iterator[Experiment]:
    """The recipes of all combinations of network choices; at most `MOST_NETWORKS`."""
    points: list[Point] = [{}]
    for path, distribution in space.distributions.items():
        if space.recipe.chooses_weights(path) and isinstance(distribution, Choice):
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
    """How `trials` trials share the cluster.

    Raises:
        ResourceError: a trial fits no node, or the requested number of trials does not fit the cluster.
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
    default = room if gpus else min(room, MAX_LOCAL_TRIALS * resources.nodes)
    concurrent = hardware.concurrent or max(1, min(default, trials))
    cpus = hardware.cpus_per_trial or max(1, min(resources.cpus // concurrent, resources.node_cpus))
    problems = []
    if cpus > resources.node_cpus:
        problems.append(
            f"--cpus-per-trial {cpus}: a trial runs on one node, and the largest has {resources.node_cpus}"
            f" CPUs; ask for {resources.node_cpus} or fewer"
        )
    if gpus > resources.node_gpus:
        problems.append(
            f"--gpus-per-trial {gpus:g}: a trial runs on one node, and the most that one has is"
            f" {count(resources.node_gpus, 'GPU')}; ask for fewer, or 0 to train on CPUs"
        )
    if not problems and concurrent > room:
        problems.append(
            f"--concurrency {concurrent}: {count(concurrent, 'trial')} of {count(cpus, 'CPU')} and"
            f" {count(gpus, 'GPU')} need {count(concurrent * cpus, 'CPU')} and"
            f" {count(concurrent * gpus, 'GPU')}, the cluster has {resources.cpus} and {resources.gpus};"
            f" ask for {room} or fewer"
        )
    if problems:
        raise ResourceError(*problems)
    return Slots(concurrent, cpus, gpus)


def _plan_workers(resources: Resources, hardware: Hardware, *, trials: int) -> Slots:
    """As `plan_slots`, for trials whose workers may run on several nodes, each worker on one."""
    workers, trial_cpus = hardware.workers_per_trial, hardware.cpus_per_trial
    gpus = min(1, resources.gpus) if hardware.gpus_per_trial is None else int(hardware.gpus_per_trial > 0)
    problems = []
    if trial_cpus is not None and trial_cpus % workers:
        problems.append(
            f"--cpus-per-trial {trial_cpus}: {workers} workers share a trial's CPUs evenly; ask for a"
            f" multiple of {workers}"
        )
    if hardware.gpus_per_trial not in (None, 0, workers):
        problems.append(
            f"--gpus-per-trial {hardware.gpus_per_trial:g}: {workers} workers take a GPU each; ask for"
            f" {workers}, or for 0 to train on CPUs"
        )
    if problems:
        raise ResourceError(*problems)
    least = trial_cpus // workers if trial_cpus else 1
    room = resources.room(cpus=least, gpus=gpus)
    default = room // workers if gpus else min(room, MAX_LOCAL_TRIALS * resources.nodes) // workers
    concurrent = hardware.concurrent or max(1, min(default, trials))
    if workers * concurrent > room:
        fits = room // workers
        fewer = f"--concurrency {fits}" if fits else count(room, "worker")
        raise ResourceError(
            f"--workers-per-trial {workers}: {count(concurrent, 'trial')} at a time need room for"
            f" {count(workers * concurrent, 'worker')} of {count(least, 'CPU')} and"
            f" {count(gpus, 'GPU')}, each on one node; the cluster's"
            f" {count(resources.nodes, 'node')} have room for {room};"
            f" ask for {fewer} or fewer"
        )
    cpus = least if trial_cpus else resources.most_cpus(workers=workers * concurrent, gpus=gpus)
    return Slots(concurrent, cpus, float(gpus), workers)


def check_batches(space: LoadedSpace, *, workers: int) -> None:
    """Checks that each of a trial's workers gets an image of every step's batch.

    Raises:
        ResourceError: the space has a batch size below the number of workers.
    """
    distribution = space.distributions.get("data.batch_size")
    paper = segmenter_of(space.recipe_for(space.paper_point())).data.batch_size
    smallest = min(
        [
            paper,
            *(value for value in (distribution.corners() if distribution else ()) if isinstance(value, int)),
        ]
    )
    if smallest < workers:
        raise ResourceError(
            f"--workers-per-trial {workers}: a step's batch is shared by the workers, and the space has"
            f" batches of {smallest}; ask for {smallest} or fewer, or set data.batch_size={workers}"
        )


def check_disk(recipe: Recipe, *, storage: Path, slots: Slots) -> None:
    """Checks that the storage has room for the checkpoints of a search.

    Raises:
        ResourceError: it has not.
    """
    network = recipe.model.model_copy(update={"weights": "none"}).build()
    weights = sum(parameter.numel() * 4 for parameter in network.parameters())
    # a running trial keeps its best weights, and a checkpoint of weights and two moments; both twice while
    # they are replaced
    need = weights * (KEPT_RUNS + slots.concurrent * (2 + 2 * 3))
    existing = next(folder for folder in (storage, *storage.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if need > free:
        raise ResourceError(
            f"--storage {storage}: the checkpoints of this search need {size(need)} ({size(weights)} a"
            f" network, {count(slots.concurrent, 'trial')} at a time), {size(free)} are free; free some, name"
            " another --storage, or lower --concurrency"
        )
