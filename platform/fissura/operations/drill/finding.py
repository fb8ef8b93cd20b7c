"""What came of a fault: numbers, and whether they are good enough."""

from dataclasses import dataclass
from typing import Any

MOST_EPOCHS_LOST = 1


@dataclass(frozen=True)
class FaultCost:
    """What a fault cost the work that it fell upon; None: does not apply, or it did not come that far.

    `seconds` pass from the fault to the first progress after it. `epochs_lost` were begun before the fault
    and are trained again, the one in flight included; of several trainings, the most that one lost.
    `trials_lost` had ended before and are not there afterwards, `trials_repeated` were done again although
    they had ended. `resources_seconds` pass from the end of the work (of the driver, where the fault ended
    it) until the cluster has all that it had before. `problems` say what went wrong otherwise.
    """

    fault: str
    work: str
    seconds: float | None = None
    epochs_lost: int | None = None
    trials_lost: int | None = None
    trials_repeated: int | None = None
    resources_seconds: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the work went on, lost no more than an epoch and no trial, and gave its resources back."""
        return (
            not self.problems
            and self.seconds is not None
            and self.resources_seconds is not None
            and (self.epochs_lost or 0) <= MOST_EPOCHS_LOST
            and not self.trials_lost
            and not self.trials_repeated
        )

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "problems": list(self.problems), "passed": self.passed}
