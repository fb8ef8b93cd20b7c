"""The nodes of a Ray cluster, each asked by a worker that is pinned to it and takes no CPU.

What the workers run travels with its source, so that a node without fissura, or with another version, can
say so.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fissura.operations import doctor
from fissura.operations.doctor.crew import PATIENCE_SECONDS, Ask
from fissura.operations.doctor.facts import Offset, RayResources

PINGS = 5


class Desk:
    """A worker of one node."""

    def answer(self, function: Ask, arguments: tuple[Any, ...]) -> Any:
        """What `function` answers here."""
        return function(*arguments)


class ClusterNodes:
    """All alive nodes of the cluster that this process is connected to."""

    def __init__(self) -> None:
        alive = [node for node in ray.nodes() if node["Alive"]]
        shared = Counter(node["NodeManagerAddress"] for node in alive)
        self._nodes: dict[str, dict[str, Any]] = {}
        for node in alive:
            address = node["NodeManagerAddress"]
            self._nodes[address if shared[address] == 1 else f"{address}/{node['NodeID'][:6]}"] = node
        self.silent: dict[str, str] = {}
        worker = ray.remote(num_cpus=0)(Desk)
        self._desks = {
            name: worker.options(scheduling_strategy=self._pinned(name)).remote() for name in self._nodes
        }

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that answer, by their address; those of one address by their identity too."""
        return tuple(name for name in self._nodes if name not in self.silent)

    def counted(self, node: str) -> tuple[RayResources | None, str]:
        """What Ray counts on a node, and its session folder."""
        plain = self._nodes[node]["Resources"]
        counts = RayResources(plain.get("CPU", 0), plain.get("GPU", 0), plain.get("object_store_memory", 0))
        return counts, str(Path(self._nodes[node]["RayletSocketName"]).parent.parent)

    def ask(self, function: Ask, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The answers of the nodes that gave one in time."""
        asked = {
            name: self._desks[name].answer.remote(function, own)
            for name, own in arguments.items()
            if name not in self.silent
        }
        return self._answers(asked)

    def at_once(self, first: Ask, second: Ask, folder: str) -> tuple[Any, Any]:
        """The first in a new process, the second on another node where there is one."""
        here, there = self.nodes[0], self.nodes[-1]
        task = ray.remote(num_cpus=0, max_retries=0)(first)
        held = task.options(scheduling_strategy=self._pinned(here)).remote(folder)
        tried = self._desks[there].answer.remote(second, (folder,))
        return tuple(ray.get([held, tried], timeout=PATIENCE_SECONDS))

    def offsets(self) -> dict[str, Offset]:
        """Each node's clock, by the quickest of a few round trips."""
        found: dict[str, Offset] = {}
        for _ in range(PINGS):
            for name in self.nodes:
                sent = time.time()
                answer = self._answers({name: self._desks[name].answer.remote(time.time, ())})
                back = time.time()
                bound = (back - sent) / 2
                if answer and (name not in found or bound < found[name].bound):
                    found[name] = Offset(answer[name] - (sent + back) / 2, bound)
        return found

    def _pinned(self, name: str) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(self._nodes[name]["NodeID"], soft=False)

    def _answers(self, asked: Mapping[str, ObjectRef]) -> dict[str, Any]:
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE_SECONDS)
        come, found = set(ready), {}
        for name, ref in asked.items():
            if ref not in come:
                self.silent[name] = f"nothing in {PATIENCE_SECONDS} s"
                continue
            try:
                found[name] = ray.get(ref)
            except Exception as error:
                self.silent[name] = " ".join(str(error).split())[-300:]
        return found


@contextmanager
def travelling() -> Iterator[None]:
    """Inside the block, functions of this package are sent to workers with their source."""
    ray.cloudpickle.register_pickle_by_value(doctor)
    try:
        yield
    finally:
        ray.cloudpickle.unregister_pickle_by_value(doctor)
