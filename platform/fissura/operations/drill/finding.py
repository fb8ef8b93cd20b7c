"""The cost of a fault, and whether it is acceptable."""

from dataclasses import dataclass
from typing import Any

MOST_EPOCHS_LOST = 1


@dataclass(frozen=True)
class FaultCost:
    """What a fault cost the work; None: does not apply, or the drill ended before.

    `seconds` is the time from the fault to the first progress after it. `epochs_lost` counts epochs begun
    before the fault and trained again, the one in flight included; the maximum over trainings. `trials_lost`
    had ended before and are missing afterwards, `trials_repeated` had ended and ran again.
    `resources_seconds` is the time from the end of the work (or of the killed driver) until the cluster's
    resources are free again. `problems` are all other errors.
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
        """Whether the work resumed, lost at most one epoch and no trial, and freed its resources."""
        return (
            not self.problems
            and self.seconds is not None
            and self.resources_seconds is not None
            and (self.epochs_lost or 0) <= MOST_EPOCHS_LOST
            and not self.trials_lost
            and not self.trials_repeated
        )

    def plain(self) -> dict[str, Any]:
        """In JSON types."""
        return {**vars(self), "problems": list(self.problems), "passed": self.passed}
