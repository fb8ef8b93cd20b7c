"""The part of a `Task` that trains one recipe; it needs Ray only for several workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fissura.core.progress import Say
from fissura.data.datasets import Named
from fissura.records.trained import Trained
from fissura.training.experiment import Experiment


@dataclass(frozen=True)
class TrainingTerms:
    """The terms of a training: a run below `storage`/runs, on the images of `data`.

    `workers` share it, each with `cpus_per_worker` CPUs (None: all, shared evenly), on the cluster at
    `address` (None: this machine). `on_epoch` is called with each epoch's record, `on_image` with the number
    of prepared images and their total, if the task has epochs or prepares images.
    """

    data: Sequence[Named]
    storage: Path
    cache: Path
    workers: int
    cpus_per_worker: int | None
    address: str | None
    say: Say
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None
    on_image: Callable[[int, int], None] | None = None


class TaskTraining(Protocol):
    """Trains a recipe of the task; a finished run is not trained again."""

    def __call__(self, recipe: Experiment, terms: TrainingTerms) -> Trained:
        """Returns the run and its manifest.

        Raises:
            UserError: the images, labels or hardware do not suffice.
        """
        ...
