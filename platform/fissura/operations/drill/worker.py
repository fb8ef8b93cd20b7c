"""A worker process is killed."""

from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.owned_processes import OwnedProcess
from fissura.operations.drill.sandbox import Ground, free_resources, seconds_until_free
from fissura.operations.drill.scenario import Stopwatch, wait_for_middle
from fissura.operations.drill.work import DrillWork


class WorkerKilled:
    """Sends SIGKILL to one process of a trial or a training, like the out-of-memory killer."""

    name = "worker"

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Injects the fault and returns its cost."""
        expected = free_resources()
        with ground.started(work.begin(ground.folder)) as driver:
            wait_for_middle(ground, work, driver)
            workers = list[OwnedProcess]()

            def find_workers() -> bool:
                workers[:] = ground.marked.alive(work.victim)
                return bool(workers)

            driver.wait(find_workers, "a worker was at work")
            ground.marked.kill(workers[:1])
            watch = Stopwatch(ground, work)
            seconds = watch.gone_on(driver)
            driver.finish()
        return watch.finding(self.name, seconds=seconds, resources_seconds=seconds_until_free(expected))
