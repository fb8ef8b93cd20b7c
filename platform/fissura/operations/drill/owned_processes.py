"""The Ray processes that a drill started, on any node; a mark in their environment identifies them."""

import json
import os
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MARK = "FISSURA_DRILL"
LOOK_SECONDS = 60  # for all nodes to answer


class OwnedProcess(NamedTuple):
    """A Ray process of the drill: its node's id, its pid there, and its title (`ray::TrialActor.train`)."""

    node: str
    pid: int
    title: str


class Marked:
    """The Ray processes of the drivers that were started with `environment`.

    Ray tasks on the nodes read /proc, so the nodes must run Linux.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)

    @property
    def environment(self) -> dict[str, str]:
        """What a driver's environment must hold for its Ray processes to carry the mark."""
        runtime = {"runtime_env": {"env_vars": {MARK: self._token}}}
        return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(runtime)}

    def alive(self, title: str = "") -> list[OwnedProcess]:
        """The running processes with `title` in their title."""
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        processes_of = ray.get([_on(node, _find).remote(self._token) for node in nodes], timeout=LOOK_SECONDS)
        return [
            OwnedProcess(node, pid, name)
            for node, processes in zip(nodes, processes_of, strict=True)
            for pid, name in processes
            if title in name
        ]

    def kill(self, processes: Sequence[OwnedProcess]) -> None:
        """Ends these processes with SIGKILL; ignores those that have ended."""
        nodes = {process.node for process in processes}
        ray.get(
            [
                _on(node, _kill).remote(
                    self._token, [process.pid for process in processes if process.node == node]
                )
                for node in nodes
            ],
            timeout=LOOK_SECONDS,
        )


def end_node(node: str) -> None:
    """Kills the raylet and the workers of the node with this id, like a power cut."""
    # nobody is left to answer
    _on(node, _end_node).remote()


def _on(node: str, function: object) -> ray.remote_function.RemoteFunction:
    strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(function)


def _find(token: str) -> list[tuple[int, str]]:
    """A Ray task: pid and title of the marked processes of this node."""
    return [
        (int(folder.name), title.decode(errors="replace"))
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and (title := _title(folder, token)) is not None
    ]


def _kill(token: str, pids: Sequence[int]) -> None:
    """A Ray task: ends those of `pids` that still carry the mark."""
    for pid in pids:
        if _title(Path("/proc", str(pid)), token) is not None:
            os.kill(pid, signal.SIGKILL)


def _end_node() -> None:
    raylet = os.environ["RAY_RAYLET_PID"]
    mine = os.getpid()
    workers = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and f"RAY_RAYLET_PID={raylet}" in environment_of(folder)
    ]
    # the raylet first, so that it does not report the workers' deaths
    for pid in (int(raylet), *(pid for pid in workers if pid != mine)):
        os.kill(pid, signal.SIGKILL)


def _title(folder: Path, token: str) -> bytes | None:
    """The title of a marked process of this node, else None; in tests, nodes may share a machine."""
    marks = {f"{MARK}={token}", f"RAY_RAYLET_PID={os.environ['RAY_RAYLET_PID']}"}
    if not marks <= environment_of(folder):
        return None
    try:
        return (folder / "cmdline").read_bytes().split(b"\0", 1)[0]
    except OSError:
        return None


def environment_of(folder: Path) -> set[str]:
    """The initial environment of the process with this folder in /proc, as `NAME=VALUE`; empty if it has
    ended."""
    try:
        return set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return set()
