"""Runs a whole drill: each fault during each work, in a new folder that is removed afterwards."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import RayError

from fissura.core.errors import FissuraError, ResourceError, SpecError
from fissura.core.files import remove_folder
from fissura.core.progress import Say
from fissura.distributed.cluster import connected
from fissura.operations.drill.driver import DriverKilled
from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.head import HeadRestarted
from fissura.operations.drill.node import NodeLost
from fissura.operations.drill.owned_processes import Marked
from fissura.operations.drill.sandbox import Ground
from fissura.operations.drill.scenario import Scenario
from fissura.operations.drill.work import ALL_WORK, DrillWork
from fissura.operations.drill.worker import WorkerKilled
from fissura.training.runtime import usable_cpus

FAULTS = ("worker", "driver", "head", "node")
NEEDED_CPUS = 2
REMOVING_SECONDS = 20.0


def run_drill(
    *, address: str | None, storage: Path, faults: Sequence[str], nodes: Sequence[str], say: Say
) -> list[FaultCost]:
    """Injects the `faults` into the cluster at `address`, or into a local Ray if it is None.

    Each fault hits each work; "node" hits one work for each of `nodes`, the ids of nodes that may be ended;
    "head", which needs `address` to be None, hits a cluster that the drill starts. Everything is written into
    a new folder below `storage`, which all nodes must share. The drill ends only processes that it started,
    and the named nodes.

    Raises:
        SpecError: a fault is not known, or does not go with `nodes` and `address`.
        ResourceError: no cluster answers, a node is not in it, or it has fewer than two CPUs.
    """
    check_faults(faults, nodes=nodes, address=address)
    drills: list[tuple[Scenario, DrillWork]] = [
        (fault, work)
        for name, fault in (("worker", WorkerKilled()), ("driver", DriverKilled()))
        if name in faults
        for work in ALL_WORK
    ]
    drills += zip(map(NodeLost, nodes), ALL_WORK, strict=False)
    # Ray can be connected to one cluster at a time
    head_drills = [(HeadRestarted(), work) for work in ALL_WORK if "head" in faults]
    total, findings = len(drills) + len(head_drills), list[FaultCost]()

    def run(fault: Scenario, work: DrillWork, cluster: str) -> None:
        number = len(findings) + 1
        say(f"{number}/{total} · {fault.name}, {work.name}")
        ground = Ground(folder / str(number), cluster, Marked())
        ground.folder.mkdir()
        findings.append(course(fault, work, ground))
        say(f"  {'passed' if findings[-1].passed else 'FAILED'}")

    with fresh_folder(storage) as folder:
        if drills:
            # a local Ray counts at least two CPUs on any machine: the work is small
            with connected(address, cpus=max(NEEDED_CPUS, usable_cpus()), say=say) as resources:
                if resources.cpus < NEEDED_CPUS:
                    raise ResourceError(
                        f"--address {address}: a drill needs {NEEDED_CPUS} CPUs, the cluster has"
                        f" {resources.cpus}; add a node"
                    )
                check_nodes(nodes)
                cluster = ray.get_runtime_context().gcs_address
                for fault, work in drills:
                    run(fault, work, cluster)
        for fault, work in head_drills:
            run(fault, work, "")
    return findings


def course(fault: Scenario, work: DrillWork, ground: Ground) -> FaultCost:
    """One fault during one work; if the work does not survive, the finding's problem is the reason."""
    try:
        return fault.run(ground, work)
    except (FissuraError, RayError) as error:
        return FaultCost(fault.name, work.name, problems=(str(error),))


def check_faults(faults: Sequence[str], *, nodes: Sequence[str], address: str | None) -> None:
    """Checks that these faults can be injected.

    Raises:
        SpecError: one is not known, "node" and `nodes` do not come together, or "head" comes with an address.
    """
    problems = [
        f"--faults {fault}: is not known; choose from {', '.join(FAULTS)}"
        for fault in faults
        if fault not in FAULTS
    ]
    if not faults:
        problems.append(f"--faults: name one at least of {', '.join(FAULTS)}")
    if "node" in faults and not nodes:
        problems.append("--faults node: ends a node of the cluster for good; say which with --node NODE_ID")
    if nodes and "node" not in faults:
        problems.append("--node: is for --faults node alone; add it, or leave --node out")
    if nodes and address is None:
        problems.append("--node: is of a cluster; say of which with --address")
    if len(nodes) > len(ALL_WORK):
        problems.append(f"--node: name {len(ALL_WORK)} or fewer, one for each work; {len(nodes)} are named")
    if "head" in faults and address is not None:
        problems.append(
            "--faults head: would end a whole cluster; leave --address out, and the drill starts one for it"
        )
    if problems:
        raise SpecError(*problems)


def check_nodes(nodes: Sequence[str]) -> None:
    """Checks that these nodes can be ended without ending this process.

    Raises:
        ResourceError: one cannot.
    """
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    here = ray.get_runtime_context().get_node_id()
    problems = []
    for node in nodes:
        if node not in alive:
            problems.append(
                f"--node {node}: is not alive in this cluster; `ray list nodes` names those that are"
            )
        elif node == here or "node:__internal_head__" in alive[node]:
            problems.append(
                f"--node {node}: is the head or this very node, which no search outlives; name another"
            )
    if problems:
        raise ResourceError(*problems)


@contextmanager
def fresh_folder(storage: Path) -> Iterator[Path]:
    """A new folder below `storage`, removed with all that is in it."""
    storage.mkdir(parents=True, exist_ok=True)
    folder = storage.resolve() / f"drill-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        # the processes of a driver that was killed write for a moment longer
        remove_folder(folder, within=REMOVING_SECONDS)
