"""A node is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.owned_processes import end_node
from fissura.operations.drill.sandbox import Ground, free_resources, seconds_until_free
from fissura.operations.drill.scenario import Stopwatch, wait_for_middle
from fissura.operations.drill.work import DrillWork


class NodeLost:
    """Kills a node's raylet and workers while it works; the node does not return."""

    name = "node"

    def __init__(self, node: str) -> None:
        self._node = node

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Injects the fault and returns its cost."""
        lost = available_resources_per_node().get(self._node, {})
        expected = {name: free - lost.get(name, 0.0) for name, free in free_resources().items()}
        with ground.started(work.begin(ground.folder)) as driver:
            with _room(on=self._node, cpus=work.cpus):
                wait_for_middle(ground, work, driver)
                driver.wait(
                    lambda: any(process.node == self._node for process in ground.marked.alive(work.victim)),
                    f"work came to the node {self._node}",
                )
            end_node(self._node)
            watch = Stopwatch(ground, work)
            seconds = watch.gone_on(driver)
            driver.finish()
        return watch.finding(self.name, seconds=seconds, resources_seconds=seconds_until_free(expected))


class _Hold:
    """An actor that holds its CPUs and does nothing."""


@contextmanager
def _room(*, on: str, cpus: int) -> Iterator[None]:
    """Inside the block the drill holds all free CPUs of the cluster except `cpus`, which are on the node `on`
    if it has so many, so that work is scheduled there."""
    free = {node: int(amount.get("CPU", 0)) for node, amount in available_resources_per_node().items()}
    actors = []
    for node in sorted(free, key=lambda candidate: candidate != on):
        kept_free = min(free[node], cpus)
        cpus -= kept_free
        if free[node] > kept_free:
            strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            holder = ray.remote(num_cpus=free[node] - kept_free, scheduling_strategy=strategy)(_Hold)
            actors.append(holder.remote())
    try:
        yield
    finally:
        for actor in actors:
            ray.kill(actor)
