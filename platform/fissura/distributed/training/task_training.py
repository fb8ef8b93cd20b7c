"""What a task decides of one training: the part of a `Task` that needs Ray for several workers alone."""

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
    """A training that is asked for: of a run below `storage`/runs, on the images of `data`.

    `workers` share it, of `cpus_per_worker` CPUs (None: all, shared out), on the cluster at `address` (None:
    this machine). `on_epoch` is told each epoch's record, `on_image` how many images are prepared, and of how
    many, where the task has epochs or prepares images.
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
    """Trains a recipe of the task; what stands there already is not trained again."""

    def __call__(self, recipe: Experiment, terms: TrainingTerms) -> Trained:
        """Gives the run and its manifest.

        Raises:
            UserError: images, labels or hardware that it cannot be trained with.
        """
        ...
