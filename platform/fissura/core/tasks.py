"""The registry of tasks: what images are asked for, such as the mask of their cracks, or a class.

Rooms that serve every task ask a `Task` for their part of it, whose protocol stands in that room; which task
it is they do not know. Parts are named as text, as most lie above the rooms that ask for them, and are
imported when they are first asked for: a report needs no Ray, and a command's help no PyTorch.

To add a task: its parts, and an entry here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from fissura.core.errors import SpecError
from fissura.core.text import nearest

if TYPE_CHECKING:
    from fissura.batches.task_batch import TaskBatch
    from fissura.deploy.model import TaskModel
    from fissura.distributed.search.task_trials import TrialsOf
    from fissura.distributed.training.task_training import TaskTraining
    from fissura.serving.task_service import TaskService
    from fissura.studies.task_results import TaskResults
    from fissura.training.experiment import TaskInputs

P = TypeVar("P")


class _LazyPart(Generic[P]):
    """A part of a task, imported from where its task says that it lies."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: "Task", owner: type) -> P:
        module, _, attribute = task.parts[self._name].partition(":")
        part: P = getattr(import_module(module), attribute)
        return part


@dataclass(frozen=True)
class Task:
    """A task by its name, its address in the service, and the places of its `parts`, `MODULE:NAME` each.

    inputs     what goes in: its recipes and data sets
    training   one training
    trials     the trials of a search, on Ray
    results    leaderboard and report of a study
    model      a finished run at work: opened, and exported
    batch      the rows of scored images, and their scores where the truth is known
    service    what is asked and answered at its address over HTTP
    """

    name: str
    address: str
    parts: Mapping[str, str]

    inputs: "ClassVar[_LazyPart[TaskInputs]]" = _LazyPart()
    training: "ClassVar[_LazyPart[TaskTraining]]" = _LazyPart()
    trials: "ClassVar[_LazyPart[TrialsOf]]" = _LazyPart()
    results: "ClassVar[_LazyPart[TaskResults]]" = _LazyPart()
    model: "ClassVar[_LazyPart[TaskModel]]" = _LazyPart()
    batch: "ClassVar[_LazyPart[TaskBatch]]" = _LazyPart()
    service: "ClassVar[_LazyPart[TaskService]]" = _LazyPart()


TASKS: Mapping[str, Task] = {
    "segmentation": Task(
        "segmentation",
        "segment",
        {
            "inputs": "fissura.segmentation.recipe:SEGMENTATION_INPUTS",
            "training": "fissura.distributed.training.train_segmenter:SEGMENTATION_TRAINING",
            "trials": "fissura.distributed.search.search_segmenters:SegmentationTrials",
            "results": "fissura.tasks.segmentation.results:SEGMENTATION_RESULTS",
            "model": "fissura.deploy.model:SEGMENTATION_MODEL",
            "batch": "fissura.tasks.segmentation.batch:SEGMENTATION_BATCH",
            "service": "fissura.tasks.segmentation.service:SEGMENTATION_SERVICE",
        },
    ),
    "classification": Task(
        "classification",
        "classify",
        {
            "inputs": "fissura.classification.recipe:CLASSIFICATION_INPUTS",
            "training": "fissura.distributed.training.train_classifier:CLASSIFICATION_TRAINING",
            "trials": "fissura.distributed.search.search_classifiers:ClassificationTrials",
            "results": "fissura.tasks.classification.results:CLASSIFICATION_RESULTS",
            "model": "fissura.deploy.model:CLASSIFICATION_MODEL",
            "batch": "fissura.tasks.classification.batch:CLASSIFICATION_BATCH",
            "service": "fissura.tasks.classification.service:CLASSIFICATION_SERVICE",
        },
    ),
}


def task_named(name: str) -> Task:
    """The task of this name, as a recipe or the card of a model has it.

    Raises:
        SpecError: there is none.
    """
    if name not in TASKS:
        raise SpecError(f"task `{name:.80}` is not known{nearest(name, TASKS)}; known are {', '.join(TASKS)}")
    return TASKS[name]


def all_tasks() -> tuple[Task, ...]:
    """All tasks, in the order of the registry."""
    return tuple(TASKS.values())
