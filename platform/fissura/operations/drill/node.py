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
    """A node's raylet and workers are killed while it is at work; it does not come back."""

    name = "node"

    def __init__(self, node: str) -> None:
        self._node = node

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Makes the fault, and gives what it cost."""
        lost = available_resources_per_node().get(self._node, {})
        expected = {name: free - lost.get(name, 0.0) for name, free in free_resources().items()}
        with ground.started(work.begin(ground.folder)) as driver:
            with _room(on=self._node, cpus=work.cpus):
                wait_for_middle(ground, work, driver)
                driver.wait(
                    lambda: any(one.node == self._node for one in ground.marked.alive(work.victim)),
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
    """Inside the block the drill holds the cluster's free CPUs but for `cpus` of them, on the node `on` where
    it has so many, so that work comes there."""
    free = {node: int(amount.get("CPU", 0)) for node, amount in available_resources_per_node().items()}
    holds = []
    for node in sorted(free, key=lambda one: one != on):
        left = min(free[node], cpus)
        cpus -= left
        if free[node] > left:
            strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            actor = ray.remote(num_cpus=free[node] - left, scheduling_strategy=strategy)(_Hold)
            holds.append(actor.remote())
    try:
        yield
    finally:
        for hold in holds:
            ray.kill(hold)
