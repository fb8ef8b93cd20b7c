"""Where the work runs: on a local Ray of this process, or on an existing cluster."""

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from ray._private.node import Node
from ray.exceptions import RayError

from fissura.core import text
from fissura.core.errors import ResourceError
from fissura.core.progress import Say, silent
from fissura.distributed.environment import check_current_cluster, private_folder
from fissura.distributed.ray_lines import without_ray_lines
from fissura.distributed.reach import unreachable
from fissura.training.runtime import usable_cpus

_LOGGER = logging.getLogger(__name__)
STARTS = 3  # of a local Ray: the time that each has is fixed in Ray's code, and too short on a busy machine


@dataclass(frozen=True)
class Resources:
    """CPUs and GPUs of a cluster's alive nodes: in total, of the largest node, and of `each` node (empty if
    all are alike)."""

    cpus: int
    gpus: int
    nodes: int
    node_cpus: int
    node_gpus: int
    each: tuple[tuple[int, int], ...] = ()

    def room(self, *, cpus: int, gpus: int) -> int:
        """How many workers of so many CPUs and GPUs fit, each on one node."""
        each = self.each or ((self.node_cpus, self.node_gpus),) * self.nodes
        return sum(min(node[0] // cpus, node[1] // gpus if gpus else node[0]) for node in each)

    def most_cpus(self, *, workers: int, gpus: int) -> int:
        """The most CPUs that each of `workers` workers of so many GPUs can have; 0: not all of them fit."""
        cpus = 0
        while self.room(cpus=cpus + 1, gpus=gpus) >= workers:
            cpus += 1
        return cpus


def this_machine() -> Resources:
    """The resources that a local Ray would have."""
    cpus, gpus = usable_cpus(), torch.cuda.device_count()
    return Resources(cpus=cpus, gpus=gpus, nodes=1, node_cpus=cpus, node_gpus=gpus)


@contextmanager
def connected(
    address: str | None,
    *,
    cpus: int | None = None,
    log: Callable[[str], None] = _LOGGER.info,
    say: Say = silent,
) -> Iterator[Resources]:
    """A connection to the cluster at `address` ("auto": the one that this machine is part of).

    None starts a local Ray for the duration of the block, with `cpus` CPUs (by default all); its sockets and
    logs lie in a folder that no other user can enter. A nested block uses the outer block's cluster. Each
    line that Ray would print to this process's output goes to `log`, by default to Python's logging. Reports
    through `say` that a local Ray is being started, which takes seconds to minutes.

    Raises:
        ResourceError: no local Ray starts, no cluster answers at `address`, or another user's file defines
            "auto".
    """
    if ray.is_initialized():
        yield _resources()
        return
    with ExitStack() as ending:
        ending.enter_context(without_ray_lines(log))
        if address is None:
            _start(ending.enter_context(private_folder()), cpus=cpus or usable_cpus(), say=say)
        else:
            _join(address)
        ending.callback(ray.shutdown)
        yield _resources()


def _start(folder: Path, *, cpus: int, say: Say) -> None:
    say("starting Ray on this machine")
    for started in range(1, STARTS + 1):
        try:
            _start_once(folder, cpus=cpus)
        except ValueError as error:
            raise ResourceError(f"no Ray can be started on this machine: {_in_one_line(error)}") from None
        except Exception as error:
            if not _may_pass(error):
                raise
            if started == STARTS:
                raise ResourceError(
                    f"Ray did not start on this machine, {STARTS} times ({_in_one_line(error)}); {_load()}:"
                    " end other work or wait for its end, then run the command again, or run it on a cluster"
                    " with --address"
                ) from None
            say(f"Ray did not start ({_load()}); trying again, {started + 1} of {STARTS}")
        else:
            return


def _start_once(folder: Path, *, cpus: int) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )
    except BaseException as error:
        # Ray leaves the processes of a node that did not start to the end of this one
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(node := frame.f_locals.get("self"), Node):
                node.kill_all_processes(check_alive=False, allow_graceful=True)
        ray.shutdown()
        raise


def _may_pass(error: Exception) -> bool:
    """Whether Ray raises such an error where its processes do not start in time; most are a bare one."""
    return type(error) is Exception or isinstance(
        error, RuntimeError | TimeoutError | ConnectionError | RayError
    )


def _load() -> str:
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    busy = "busy: " if load > cpus else "not busy now: "
    return f"the machine is {busy}load {load:.1f} on {text.count(cpus, 'CPU')}"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _join(address: str) -> None:
    if address == "auto" and not os.environ.get("RAY_ADDRESS"):
        check_current_cluster()
    try:
        if reason := unreachable(address):
            raise ConnectionError(reason)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with `ray up"
            f" cluster.yaml`, or leave --address out to run on this machine"
        ) from None


def _resources() -> Resources:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(node.get(name, 0)) for node in nodes] for name in ("CPU", "GPU"))
    return Resources(
        cpus=sum(cpus), gpus=sum(gpus), nodes=len(nodes), node_cpus=max(cpus), node_gpus=max(gpus),
        each=tuple(zip(cpus, gpus, strict=True)),
    )  # fmt: skip
