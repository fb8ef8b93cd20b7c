"""Why Ray gave up a trial's process, and what becomes of the trial."""

import re
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

# in what Ray says when its memory monitor kills a worker
LOW_ON_MEMORY = "running low on memory"
# what Ray says of the actor, once the node is known to be dead and before; of a process that died it says
# "its worker process has died"
SAID_OF_LOST_NODES = ("its node has died", "temporarily unavailable")


class LostNodes(Callback):
    """Lets a trial have one failure more each time that it loses its node.

    Ray Tune forgives the loss of nodes that were drained before, and counts all others as crashes.
    """

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Looks at why the trial is begun anew."""
        if lost_its_node(trial):
            trial.max_failures += 1


def goes_on(trial: Trial) -> bool:
    """Whether a trial that Ray Tune gave up is to go on all the same.

    Tune gives up a trial that loses its node after it crashed once. It also gives up one with failures left,
    where it hears twice of the actor's end: the second time the trial is pending already, and Tune retries
    only what runs.
    """
    return lost_its_node(trial) or trial.should_recover()


def lost_its_node(trial: Trial) -> bool:
    """Whether the last end of a trial's process was that of its node."""
    return any(words in last_error(trial) for words in SAID_OF_LOST_NODES)


def reason_of(trial: Trial) -> str:
    """Ray's reason for the last end of a trial's process, in one line."""
    lines = [line.strip() for line in last_error(trial).splitlines() if line.strip()]
    if memory := [line for line in lines if LOW_ON_MEMORY in line]:
        used = re.search(r"[\d.]+GB used / [\d.]+GB limit", memory[0])
        return (
            f"its node was low on memory ({used[0] if used else memory[0][:200]}), so Ray killed it; lower"
            " data.batch_size or the crop, or have fewer trials at a time with --concurrency"
        )
    return lines[-1][:300] if lines else "no reason was given"


def last_error(trial: Trial) -> str:
    """What Ray says of the last failure alone: its file holds all of them, and `Trial.get_error` looks for it
    where it comes to lie only later."""
    path = Path(trial.error_file or "")
    return path.read_text(encoding="utf-8").rpartition("Failure # ")[2] if path.is_file() else ""
