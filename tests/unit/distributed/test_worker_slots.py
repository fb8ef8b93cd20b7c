"""How trials of several workers share a cluster: each worker on one node, a trial on as many as it takes."""

import pytest

from fissura.core.errors import ResourceError
from fissura.distributed.cluster import Resources
from fissura.distributed.preflight import Hardware, Slots, check_batches, plan_slots
from fissura.distributed.training.launch import cpus_each
from fissura.spaces.load import load_text
from fissura.spaces.space import LoadedSpace


def cluster(*each: tuple[int, int]) -> Resources:
    """A cluster of nodes with so many CPUs and GPUs."""
    cpus, gpus = zip(*each, strict=True)
    return Resources(
        cpus=sum(cpus), gpus=sum(gpus), nodes=len(each), node_cpus=max(cpus), node_gpus=max(gpus), each=each
    )


def space(parameter: str) -> LoadedSpace:
    return load_text(
        f"recipe: small_unet\nobjective: {{metric: val/f1, mode: max}}\nspace:\n  {parameter}\n",
        source="test.yaml",
    )


@pytest.mark.parametrize(
    ("nodes", "hardware", "slots"),
    [
        ([(1, 0)] * 2, Hardware(workers_per_trial=2), Slots(1, 1, 0.0, 2)),
        ([(8, 0)] * 4, Hardware(workers_per_trial=4), Slots(4, 2, 0.0, 4)),
        ([(8, 0)] * 4, Hardware(workers_per_trial=2, concurrent=2), Slots(2, 8, 0.0, 2)),
        ([(8, 0)] * 4, Hardware(workers_per_trial=2, cpus_per_trial=8), Slots(4, 4, 0.0, 2)),
        ([(16, 2)] * 4, Hardware(workers_per_trial=4), Slots(2, 8, 1.0, 4)),
        ([(16, 2)] * 4, Hardware(workers_per_trial=2, gpus_per_trial=2), Slots(4, 8, 1.0, 2)),
        ([(16, 2)] * 4, Hardware(workers_per_trial=2, gpus_per_trial=0, concurrent=1), Slots(1, 16, 0.0, 2)),
        # a node's odd CPU is of no use to workers of two
        ([(3, 0)] * 2, Hardware(workers_per_trial=2, cpus_per_trial=4), Slots(1, 2, 0.0, 2)),
        ([(0, 0), (4, 1), (4, 1)], Hardware(workers_per_trial=2), Slots(1, 4, 1.0, 2)),
    ],
)
def test_workers_fill_the_nodes(nodes: list[tuple[int, int]], hardware: Hardware, slots: Slots) -> None:
    assert plan_slots(cluster(*nodes), hardware, trials=20) == slots


def test_no_more_trials_run_at_a_time_than_there_are() -> None:
    assert plan_slots(cluster((8, 0), (8, 0)), Hardware(workers_per_trial=2), trials=1) == Slots(1, 8, 0.0, 2)


@pytest.mark.parametrize(
    ("nodes", "hardware", "said"),
    [
        (
            [(1, 0)] * 2,
            Hardware(workers_per_trial=3),
            "--workers-per-trial 3: 1 trial at a time need room for 3 workers of 1 CPU and 0 GPUs, each on"
            " one node; the cluster's 2 nodes have room for 2; ask for 2 workers or fewer",
        ),
        (
            [(3, 0)] * 2,
            Hardware(workers_per_trial=3, cpus_per_trial=6),
            "the cluster's 2 nodes have room for 2; ask for 2 workers or fewer",
        ),
        ([(4, 0)] * 2, Hardware(workers_per_trial=2, concurrent=5), "ask for --concurrency 4 or fewer"),
        ([(16, 2)] * 2, Hardware(workers_per_trial=4, concurrent=2), "room for 4; ask for --concurrency 1"),
        ([(8, 0)], Hardware(workers_per_trial=2, cpus_per_trial=3), "ask for a multiple of 2"),
        ([(8, 2)], Hardware(workers_per_trial=2, gpus_per_trial=0.5), "2 workers take a GPU each; ask for 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_would(
    nodes: list[tuple[int, int]], hardware: Hardware, said: str
) -> None:
    with pytest.raises(ResourceError) as refused:
        plan_slots(cluster(*nodes), hardware, trials=20)
    assert said in str(refused.value)


def test_each_worker_has_an_image_of_every_batch_of_the_space() -> None:
    batches = space("data.batch_size: {choice: [2, 4, 8]}")
    check_batches(batches, workers=2)
    with pytest.raises(ResourceError, match="the space has batches of 2; ask for 2 or fewer"):
        check_batches(batches, workers=4)
    with pytest.raises(ResourceError, match="the space has batches of 3"):
        check_batches(space("data.batch_size: {int: [3, 9]}"), workers=4)
    with pytest.raises(ResourceError, match=r"or set data\.batch_size=9"):
        check_batches(space("model.width: {choice: [4, 8]}"), workers=9)


@pytest.mark.parametrize(
    ("nodes", "workers", "asked", "cpus"),
    [
        ([(8, 0)], 2, None, 4),
        ([(8, 0)], 2, 1, 1),
        # half of all CPUs would fit one node alone
        ([(6, 0), (2, 0)], 2, None, 3),
        ([(3, 0), (3, 0)], 3, None, 1),
        ([(16, 2)] * 2, 4, None, 8),
        ([(0, 0), (4, 1), (4, 1)], 2, None, 4),
    ],
)
def test_a_training_s_workers_share_the_nodes(
    nodes: list[tuple[int, int]], workers: int, asked: int | None, cpus: int
) -> None:
    resources = cluster(*nodes)
    gpus = min(1, resources.gpus)
    assert cpus_each(resources, workers=workers, gpus=gpus, asked=asked) == cpus
    assert resources.room(cpus=cpus, gpus=gpus) >= workers


@pytest.mark.parametrize(
    ("nodes", "workers", "asked", "said"),
    [
        ([(1, 0)], 2, None, "of 1 CPU and 0 GPUs, lies on one node; the cluster's nodes have room for 1"),
        ([(3, 0), (3, 0)], 2, 4, "have room for 0; ask for fewer workers, or for fewer CPUs a worker"),
        ([(8, 1)], 2, None, "of 1 CPU and 1 GPU"),
    ],
)
def test_a_training_s_workers_that_no_node_can_hold_are_refused(
    nodes: list[tuple[int, int]], workers: int, asked: int | None, said: str
) -> None:
    resources = cluster(*nodes)
    with pytest.raises(ResourceError, match=f"--workers {workers}: ") as error:
        cpus_each(resources, workers=workers, gpus=min(1, resources.gpus), asked=asked)
    assert said in str(error.value)
