"""The failure policy over Ray Tune's trials."""

from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from fissura.distributed.failure_policy import Decision, decide, of_process


class LostNodes(Callback):
    """Lets a trial have one failure more each time that it fails through no fault of its own.

    Ray Tune forgives the loss of nodes that were drained before, and counts all others as crashes.
    """

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Looks at why the trial is begun anew."""
        if decision_of(trial).action == "requeue":
            trial.max_failures += 1


def decision_of(trial: Trial) -> Decision:
    """What becomes of a trial whose process ended, also where Ray Tune gave it up.

    Tune gives up a trial that loses its node after it crashed once. It also gives up one with failures left,
    where it hears twice of the actor's end: the second time the trial is pending already, and Tune retries
    only what runs.
    """
    return decide(of_process(last_error(trial)), crashes=trial.num_failures, forgiven=trial.max_failures)


def last_error(trial: Trial) -> str:
    """What Ray says of the last failure alone: its file holds all of them, and `Trial.get_error` looks for it
    where it comes to lie only later."""
    path = Path(trial.error_file or "")
    return path.read_text(encoding="utf-8").rpartition("Failure # ")[2] if path.is_file() else ""
