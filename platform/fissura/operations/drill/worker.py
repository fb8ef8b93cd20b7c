"""A worker process is killed."""

from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.owned_processes import OwnedProcess
from fissura.operations.drill.sandbox import Ground, free_resources, seconds_until_free
from fissura.operations.drill.scenario import Stopwatch, wait_for_middle
from fissura.operations.drill.work import DrillWork


class WorkerKilled:
    """SIGKILL to one process that is at work on a trial or a training, as a lack of memory would."""

    name = "worker"

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Makes the fault, and gives what it cost."""
        expected = free_resources()
        with ground.started(work.begin(ground.folder)) as driver:
            wait_for_middle(ground, work, driver)
            found = list[OwnedProcess]()

            def look() -> bool:
                found[:] = ground.marked.alive(work.victim)
                return bool(found)

            driver.wait(look, "a worker was at work")
            ground.marked.kill(found[:1])
            watch = Stopwatch(ground, work)
            seconds = watch.gone_on(driver)
            driver.finish()
        return watch.finding(self.name, seconds=seconds, resources_seconds=seconds_until_free(expected))
