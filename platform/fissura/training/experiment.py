"""The base of every task's recipes: a frozen description with a name and a seed, and the digests that name
it."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fissura.core.documents import read_json
from fissura.core.errors import SpecError
from fissura.core.spec import MOST_VALUES, Spec, digest
from fissura.core.tasks import Task, all_tasks

if TYPE_CHECKING:
    from fissura.core.pretrained import Pretrained
    from fissura.data.datasets import Named
    from fissura.data.sources import ImageData

KeptBy = Literal["val/loss", "val/f1", "val/dice", "val/iou", "val/precision", "val/recall"]
"""The metrics by which the kept model of a segmentation can be chosen."""


class Experiment(Spec):
    """Base of the recipes: everything that decides a training.

    The same recipe, data and seed give the same result on the same machine. `task` is the task's name;
    `metrics` are those that its trials report and a search can optimise. The fields below `networks` choose
    the networks whose `weights_wanted` must be there. With `leaves_runs` each completed trial leaves a run,
    else only the best one does. `no_plan` says why the time of a search cannot be forecast; empty where it
    can.
    """

    task: ClassVar[str]
    metrics: ClassVar[frozenset[str]]
    networks: ClassVar[tuple[str, ...]]
    leaves_runs: ClassVar[bool] = True
    no_plan: ClassVar[str] = "has trials that are not timed by their epochs"

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    seed: int = Field(0, ge=0, lt=2**32)

    @property
    @abstractmethod
    def length(self) -> int:
        """Epochs of a trial; 1 where a trial is a single step."""

    @property
    @abstractmethod
    def weights_wanted(self) -> "tuple[Pretrained, ...]":
        """The networks that need pretrained weights or a file of them."""

    @classmethod
    def chooses_weights(cls, path: str) -> bool:
        """Whether the field at `path` may change `weights_wanted`."""
        return path.startswith(cls.networks)

    @abstractmethod
    def measured(self, metric: str, *, on: str) -> str:
        """Where and how a trial's `metric` is measured, as the end of a sentence; `on` names the data. Empty
        where no image is measured."""

    @property
    def last_phase(self) -> range:
        """The epochs, counted from 0, of its last phase."""
        return range(self.length)

    @property
    def configuration(self) -> str:
        """A digest of everything but the seed: the runs of one leaderboard row share it."""
        return digest({**self.named_by(), "seed": None})

    def run_id(self, content: str) -> str:
        """The name of the run of this recipe on data of this content digest; equal runs have equal names."""
        return digest({"recipe": self.named_by(), "content": content})[:12]

    def named_by(self) -> dict[str, Any]:
        """The plain form, which its digests are of."""
        return self.plain()


@dataclass(frozen=True)
class TaskInputs:
    """The inputs of a task: the class of its recipes, a field that only they have, and the function that
    opens what `--data` names (raises a `UserError` with all problems at once)."""

    recipe: type[Experiment]
    mark: str
    parse: "Callable[[Sequence[Named]], tuple[ImageData, ...]]"


def task_of_file(path: Path) -> Task:
    """The task of the recipe in the JSON file at `path`, valid or not; the first task if the file shows
    none."""
    plain: Any = {}
    with contextlib.suppress(SpecError):
        plain = read_json(path, remedy="", values=MOST_VALUES)
    return next((task for task in all_tasks() if task.inputs.mark in plain), all_tasks()[0])
