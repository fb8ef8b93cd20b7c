"""A trial whose node is lost goes on on another one, and that is no failure of its own."""

from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from fissura.jobs.progress import last_error

# what Ray says of the actor, once the node is known to be dead and before; of a process that died it says
# "its worker process has died"
SAID_OF_LOST_NODES = ("its node has died", "temporarily unavailable")


class LostNodes(Callback):
    """Lets a trial have one failure more each time that it loses its node.

    Ray Tune forgives the loss of nodes that were drained before, and counts all others as crashes.
    """

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Looks at why the trial is begun anew."""
        if any(words in last_error(trial) for words in SAID_OF_LOST_NODES):
            trial.max_failures += 1
