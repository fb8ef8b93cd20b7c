"""The nodes of a Ray cluster, each queried by a worker that is pinned to it and reserves no CPU.

Functions are sent to the workers with their source, so that a node without fissura, or with another version,
can report it.
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
from fissura.operations.doctor.crew import ANSWER_SECONDS, Ask
from fissura.operations.doctor.facts import Offset, RayResources

PINGS = 5


class NodeWorker:
    """The worker on one node."""

    def answer(self, function: Ask, arguments: tuple[Any, ...]) -> Any:
        """The result of `function` on this node."""
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
        worker = ray.remote(num_cpus=0)(NodeWorker)
        self._workers = {
            name: worker.options(scheduling_strategy=self._pinned(name)).remote() for name in self._nodes
        }

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that answer, by address; nodes that share an address, by id too."""
        return tuple(name for name in self._nodes if name not in self.silent)

    def counted(self, node: str) -> tuple[RayResources | None, str]:
        """What Ray counts on a node, and its session folder."""
        plain = self._nodes[node]["Resources"]
        counts = RayResources(plain.get("CPU", 0), plain.get("GPU", 0), plain.get("object_store_memory", 0))
        return counts, str(Path(self._nodes[node]["RayletSocketName"]).parent.parent)

    def ask(self, function: Ask, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The results of the nodes that answered in time."""
        tasks = {
            name: self._workers[name].answer.remote(function, values)
            for name, values in arguments.items()
            if name not in self.silent
        }
        return self._answers(tasks)

    def at_once(self, first: Ask, second: Ask, folder: str) -> tuple[Any, Any]:
        """Runs the first function in a new process, the second on another node if there is one."""
        here, there = self.nodes[0], self.nodes[-1]
        task = ray.remote(num_cpus=0, max_retries=0)(first)
        first_result = task.options(scheduling_strategy=self._pinned(here)).remote(folder)
        second_result = self._workers[there].answer.remote(second, (folder,))
        return tuple(ray.get([first_result, second_result], timeout=ANSWER_SECONDS))

    def offsets(self) -> dict[str, Offset]:
        """Each node's clock, by the quickest of a few round trips."""
        offsets: dict[str, Offset] = {}
        for _ in range(PINGS):
            for name in self.nodes:
                sent = time.time()
                answer = self._answers({name: self._workers[name].answer.remote(time.time, ())})
                back = time.time()
                bound = (back - sent) / 2
                if answer and (name not in offsets or bound < offsets[name].bound):
                    offsets[name] = Offset(answer[name] - (sent + back) / 2, bound)
        return offsets

    def _pinned(self, name: str) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(self._nodes[name]["NodeID"], soft=False)

    def _answers(self, tasks: Mapping[str, ObjectRef]) -> dict[str, Any]:
        ready, _ = ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=ANSWER_SECONDS)
        answered, answers = set(ready), {}
        for name, task in tasks.items():
            if task not in answered:
                self.silent[name] = f"nothing in {ANSWER_SECONDS} s"
                continue
            try:
                answers[name] = ray.get(task)
            except Exception as error:
                self.silent[name] = " ".join(str(error).split())[-300:]
        return answers


@contextmanager
def travelling() -> Iterator[None]:
    """Inside the block, functions of this package are sent to workers with their source."""
    ray.cloudpickle.register_pickle_by_value(doctor)
    try:
        yield
    finally:
        ray.cloudpickle.unregister_pickle_by_value(doctor)
