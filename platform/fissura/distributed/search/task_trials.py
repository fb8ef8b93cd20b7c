"""The part of a `Task` that runs its searches on Ray."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna

from fissura.core.progress import Say
from fissura.distributed.preflight import Hardware, Slots
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.stopping import StopFile
from fissura.spaces.space import LoadedSpace
from fissura.studies.study import Plan, Study
from fissura.studies.task_results import TaskResults

EVALUATED_RUNS = 3
"""The number of best runs of a search that are evaluated on the test images, besides the paper's own."""


@dataclass(frozen=True)
class SearchTerms:
    """The terms of a search. A trial without progress for `trial_timeout` seconds fails (None: the task's own
    timeout); `on_image` is called with the number of prepared images and their total."""

    study: Study
    plan: Plan
    space: LoadedSpace
    hardware: Hardware
    cache: Path
    stop: StopFile
    trial_timeout: float | None
    say: Say
    on_image: Callable[[int, int], None] | None


class TaskTrials(Protocol):
    """The trials of one search, from their inputs to the final evaluation; the methods are called in this
    order."""

    def prepare(self) -> None:
        """Prepares what all trials need of the images, before Ray starts.

        Raises:
            UserError: the hardware or the images do not suffice; nothing was written.
        """
        ...

    def place(self, slots: Slots) -> str:
        """Takes the slots of the trials; returns a text about what runs at a time.

        Raises:
            ResourceError: the slots do not suffice; nothing was written.
        """
        ...

    def context(self) -> Mapping[str, Any]:
        """The context of each of the searcher's suggestions, in JSON types."""
        ...

    def run(self, search: StudySearch, *, todo: int) -> None:
        """Runs `todo` more trials, or until a stop is requested; an interrupted trial stays open."""
        ...

    def evaluate(self, trials: optuna.Study, runs: Sequence[str]) -> TaskResults:
        """Evaluates those of `runs` that are not yet, on the test images; returns what ranks them."""
        ...


TrialsOf = Callable[[SearchTerms], TaskTrials]
