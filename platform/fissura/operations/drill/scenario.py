"""What all faults share: a fault in the middle of some work, the wait until it resumes, the cost."""

import time
from typing import Protocol

from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.sandbox import Driver, Ground
from fissura.operations.drill.work import DrillWork, State, epochs_lost, gone_on


class Scenario(Protocol):
    """A fault that can be injected during some work."""

    name: str

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Injects the fault and returns its cost.

        Raises:
            Stuck: the work did not reach its middle, or did not resume.
        """
        ...


class Stopwatch:
    """Measures the time from the fault to the first progress after it."""

    def __init__(self, ground: Ground, work: DrillWork) -> None:
        self._ground, self._work = ground, work
        self._begin = time.monotonic()
        self.state = work.state(ground.folder)
        """The progress of the work right after the fault."""

    def gone_on(self, driver: Driver) -> float:
        """Waits until the work resumes; returns the seconds since the fault."""
        driver.wait(
            lambda: gone_on(self.state, self._work.state(self._ground.folder)), "it went on after the fault"
        )
        return time.monotonic() - self._begin

    def finding(self, fault: str, *, seconds: float, resources_seconds: float) -> FaultCost:
        """What the fault cost, now that the work is at its end."""
        after = self._work.state(self._ground.folder)
        times = {"seconds": seconds, "resources_seconds": resources_seconds}
        return finding(fault, self._work, before=self.state, after=after, **times)


def wait_for_middle(ground: Ground, work: DrillWork, driver: Driver) -> None:
    """Waits until the work is in its middle."""
    driver.wait(lambda: work.midway(work.state(ground.folder)), "the middle of the work")


def finding(
    fault: str, work: DrillWork, *, before: State, after: State, seconds: float, resources_seconds: float
) -> FaultCost:
    """The cost of the fault, from the progress at the fault and at the end."""
    in_both = before.ended.keys() & after.ended.keys()
    return FaultCost(
        fault,
        work.name,
        seconds=round(seconds, 1),
        epochs_lost=epochs_lost(after),
        trials_lost=len(before.ended) - len(in_both) if after.ended else None,
        trials_repeated=(
            sum(before.ended[trial] != after.ended[trial] for trial in in_both) + after.doubled
            if after.ended
            else None
        ),
        resources_seconds=round(resources_seconds, 1),
        problems=tuple(f"trial {trial} failed: {reason}" for trial, reason in after.failed.items()),
    )
