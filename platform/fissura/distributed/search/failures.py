"""The failure policy over Ray Tune's trials."""

from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from fissura.distributed.failure_policy import Decision, decide, of_process


class LostNodes(Callback):
    """Allows a trial one more failure each time that it loses its node.

    Ray Tune forgives only the loss of drained nodes, and counts all other losses as crashes.
    """

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Checks why Ray Tune restarts the trial."""
        if decision_of(trial).action == "requeue":
            trial.max_failures += 1


def decision_of(trial: Trial) -> Decision:
    """The decision about a trial whose process ended, even if Ray Tune gave the trial up.

    Tune gives up a trial that loses its node after one crash. It also gives up a trial with failures left if
    two messages report the actor's end: at the second the trial is already pending, and Tune retries running
    trials only.
    """
    return decide(of_process(last_error(trial)), crashes=trial.num_failures, forgiven=trial.max_failures)


def last_error(trial: Trial) -> str:
    """Ray's message about the last failure alone: its file holds all of them, and `Trial.get_error` reads a
    path that exists only later."""
    path = Path(trial.error_file or "")
    return path.read_text(encoding="utf-8").rpartition("Failure # ")[2] if path.is_file() else ""
