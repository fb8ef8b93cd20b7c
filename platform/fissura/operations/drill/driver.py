"""The driver is killed, and the same work is resumed."""

from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.sandbox import Ground, free_resources, seconds_until_free
from fissura.operations.drill.scenario import Stopwatch, wait_for_middle
from fissura.operations.drill.work import DrillWork


class DriverKilled:
    """Sends SIGKILL to the process that a user started; resumes the work when the cluster's resources are
    free again."""

    name = "driver"

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Injects the fault and returns its cost."""
        expected = free_resources()
        with ground.started(work.begin(ground.folder)) as driver:
            wait_for_middle(ground, work, driver)
            driver.kill()
        watch = Stopwatch(ground, work)
        resources_seconds = seconds_until_free(expected)
        with ground.started(work.again(ground.folder)) as driver:
            seconds = watch.gone_on(driver)
            driver.finish()
        seconds_until_free(expected)
        return watch.finding(self.name, seconds=seconds, resources_seconds=resources_seconds)
