"""The Ray processes that a drill started, known by a mark in their environment, on any node."""

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
    """The processes of the drivers that were started with `environment`.

    Nodes are looked at through Ray tasks that read /proc, so that they need to be Linux.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)

    @property
    def environment(self) -> dict[str, str]:
        """What a driver's environment must hold for its Ray processes to carry the mark."""
        runtime = {"runtime_env": {"env_vars": {MARK: self._token}}}
        return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(runtime)}

    def alive(self, title: str = "") -> list[OwnedProcess]:
        """Those that run now and have `title` in their title."""
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        found = ray.get([_on(node, _find).remote(self._token) for node in nodes], timeout=LOOK_SECONDS)
        return [
            OwnedProcess(node, pid, name)
            for node, processes in zip(nodes, found, strict=True)
            for pid, name in processes
            if title in name
        ]

    def kill(self, processes: Sequence[OwnedProcess]) -> None:
        """Ends these processes with SIGKILL; one that has ended meanwhile is passed over."""
        nodes = {process.node for process in processes}
        ray.get(
            [
                _on(node, _kill).remote(self._token, [one.pid for one in processes if one.node == node])
                for node in nodes
            ],
            timeout=LOOK_SECONDS,
        )


def end_node(node: str) -> None:
    """Ends the node with this id as a power cut would: its raylet is killed, and its workers with it."""
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
    """A Ray task: ends those of `pids` that carry the mark still."""
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
    # the raylet first: it must not tell anybody of the others
    for pid in (int(raylet), *(pid for pid in workers if pid != mine)):
        os.kill(pid, signal.SIGKILL)


def _title(folder: Path, token: str) -> bytes | None:
    """The title of a process of this node that carries the mark; nodes may share a machine in tests."""
    marks = {f"{MARK}={token}", f"RAY_RAYLET_PID={os.environ['RAY_RAYLET_PID']}"}
    if not marks <= environment_of(folder):
        return None
    try:
        return (folder / "cmdline").read_bytes().split(b"\0", 1)[0]
    except OSError:
        return None


def environment_of(folder: Path) -> set[str]:
    """The environment that the process began with whose folder in /proc this is, as `NAME=VALUE`; nothing
    where it has ended."""
    try:
        return set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
    except OSError:
        return set()
