"""Where the work runs: a Ray of this process's own, or a cluster that is there already."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
import torch

from fissura.core.errors import ResourceError
from fissura.engine.runtime import usable_cpus
from fissura.jobs.ray_lines import without_ray_lines
from fissura.jobs.reach import unreachable


@dataclass(frozen=True)
class Resources:
    """What the alive nodes of a cluster hold: in all, the most that one node has, and `each` one's CPUs and
    GPUs, where they are not all alike."""

    cpus: int
    gpus: int
    nodes: int
    node_cpus: int
    node_gpus: int
    each: tuple[tuple[int, int], ...] = ()

    def room(self, *, cpus: int, gpus: int) -> int:
        """How many workers of so many CPUs and GPUs fit, each on one node."""
        each = self.each or ((self.node_cpus, self.node_gpus),) * self.nodes
        return sum(min(own[0] // cpus, own[1] // gpus if gpus else own[0]) for own in each)

    def most_cpus(self, *, workers: int, gpus: int) -> int:
        """The most CPUs that each of `workers` workers of so many GPUs can have; 0: not all of them fit."""
        cpus = 0
        while self.room(cpus=cpus + 1, gpus=gpus) >= workers:
            cpus += 1
        return cpus


def this_machine() -> Resources:
    """What a Ray of this process's own would hold."""
    cpus, gpus = usable_cpus(), torch.cuda.device_count()
    return Resources(cpus=cpus, gpus=gpus, nodes=1, node_cpus=cpus, node_gpus=gpus)


@contextmanager
def connected(address: str | None, *, cpus: int | None = None) -> Iterator[Resources]:
    """A connection to the cluster at `address` ("auto": the one that this machine is part of).

    None starts a Ray on this machine alone for as long as the block lasts, which counts with `cpus` CPUs, by
    default those that there are. Ray's own logs stay in its session folder. Inside another such block it is
    that one's cluster.

    Raises:
        ResourceError: no cluster answers at `address`.
    """
    if ray.is_initialized():
        yield _resources()
        return
    with without_ray_lines():
        _connect(address, cpus=cpus)
        try:
            yield _resources()
        finally:
            ray.shutdown()


def _connect(address: str | None, *, cpus: int | None) -> None:
    local = address is None
    try:
        if address is not None and (reason := unreachable(address)):
            raise ConnectionError(reason)
        ray.init(
            address="local" if local else address,
            num_cpus=(cpus or usable_cpus()) if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with `ray up"
            f" cluster.yaml`,"
            " or leave --address out to run on this machine"
        ) from None


def _resources() -> Resources:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(node.get(name, 0)) for node in nodes] for name in ("CPU", "GPU"))
    return Resources(
        cpus=sum(cpus), gpus=sum(gpus), nodes=len(nodes), node_cpus=max(cpus), node_gpus=max(gpus),
        each=tuple(zip(cpus, gpus, strict=True)),
    )  # fmt: skip
