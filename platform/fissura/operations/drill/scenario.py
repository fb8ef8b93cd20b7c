"""What all faults have alike: one is made in the middle of some work, the work goes on, all is counted."""

import time
from typing import Protocol

from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.sandbox import Driver, Ground
from fissura.operations.drill.work import DrillWork, State, epochs_lost, gone_on


class Scenario(Protocol):
    """A fault that can be made on a ground while some work is under way."""

    name: str

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Makes it, and gives what it cost.

        Raises:
            Stuck: the work did not come to its middle, or did not go on.
        """
        ...


class Stopwatch:
    """Runs from the fault to the first progress after it."""

    def __init__(self, ground: Ground, work: DrillWork) -> None:
        self._ground, self._work = ground, work
        self._begin = time.monotonic()
        self.state = work.state(ground.folder)
        """How far the work was when the fault had been made."""

    def gone_on(self, driver: Driver) -> float:
        """Waits until the work goes on; gives the seconds since the fault."""
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
    """Waits until a fault would fall into the middle of the work."""
    driver.wait(lambda: work.midway(work.state(ground.folder)), "the middle of the work")


def finding(
    fault: str, work: DrillWork, *, before: State, after: State, seconds: float, resources_seconds: float
) -> FaultCost:
    """What the fault cost, from how far the work was at the fault and at the end."""
    kept = before.ended.keys() & after.ended.keys()
    return FaultCost(
        fault,
        work.name,
        seconds=round(seconds, 1),
        epochs_lost=epochs_lost(after),
        trials_lost=len(before.ended) - len(kept) if after.ended else None,
        trials_repeated=(
            sum(before.ended[trial] != after.ended[trial] for trial in kept) + after.doubled
            if after.ended
            else None
        ),
        resources_seconds=round(resources_seconds, 1),
        problems=tuple(f"trial {trial} failed: {reason}" for trial, reason in after.failed.items()),
    )
