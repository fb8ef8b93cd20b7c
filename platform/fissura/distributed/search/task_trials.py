"""What a task decides of its searches: the part of a `Task` that runs on Ray."""

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
"""So many of the best runs of a search, and the paper's own, are judged on the test images."""


@dataclass(frozen=True)
class SearchTerms:
    """A search that is to be run. A trial that stands still for `trial_timeout` seconds is ended (None: the
    task's own time); `on_image` is told how many images are prepared, and of how many."""

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
    """The trials of one search, from what they need to what is judged at its end; its methods are called in
    the order in which they stand here."""

    def prepare(self) -> None:
        """Makes what all trials need of the images, before Ray starts.

        Raises:
            UserError: the hardware or the images do not do; nothing was written.
        """
        ...

    def place(self, slots: Slots) -> str:
        """Takes the slots that the trials are given, and says in words what runs at a time.

        Raises:
            ResourceError: they do not do; nothing was written.
        """
        ...

    def context(self) -> Mapping[str, Any]:
        """What each suggestion of the searcher carries, in JSON types."""
        ...

    def run(self, search: StudySearch, *, todo: int) -> None:
        """Runs `todo` more trials, or until a stop is asked for; a trial that it interrupts stays open."""
        ...

    def evaluate(self, trials: optuna.Study, runs: Sequence[str]) -> TaskResults:
        """Judges those of `runs` that are not yet, on the test images; gives what ranks them."""
        ...


TrialsOf = Callable[[SearchTerms], TaskTrials]
