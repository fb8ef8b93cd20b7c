"""What a task tells of a study's results: the part of a `Task` that leaderboards and reports ask for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fissura.core.brief import Rows
from fissura.core.progress import Say
from fissura.data.datasets import Named
from fissura.data.sample import Split
from fissura.metrics import AnyProtocol
from fissura.reports.run_sections import RunSections
from fissura.reports.task_leaderboard import TaskLeaderboard

if TYPE_CHECKING:
    import optuna

    from fissura.studies.study import Plan, Study


@dataclass(frozen=True)
class RankedRuns:
    """The evaluated runs of a study, ranked: the leaderboard's `files`, which are written, and its `board` of
    the study's own data; the report's `sections` about them. `remark` ends what it says of the data."""

    files: Sequence[Path]
    board: TaskLeaderboard
    sections: RunSections
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationTerms:
    """What an evaluation of a run is asked for. `protocols` and `conditions` are those of one task each;
    empty: the task's own."""

    data: Sequence[Named]
    split: Split
    protocols: tuple[AnyProtocol, ...]
    threshold: float | None
    conditions: tuple[str, ...]
    cache: Path
    say: Say
    on_image: Callable[[int, int], None] | None


class TaskResults(Protocol):
    """Evaluates runs and ranks evaluated ones."""

    def evaluate(self, run: Path, terms: EvaluationTerms) -> Rows[Any]:
        """Scores a finished run on a data set; gives these scores, and keeps them in the run.

        Raises:
            SpecError: a term that the task does not have.
        """
        ...

    def board(self, paths: Sequence[Path], *, say: Say) -> TaskLeaderboard:
        """Ranks the task's evaluated runs below the paths; names skipped files through `say`."""
        ...

    def rank(self, study: "Study", plan: "Plan", trials: "optuna.Study", *, say: Say) -> RankedRuns:
        """Ranks what was evaluated on the study's own data, and writes its leaderboard. `say` is told of what
        is passed over."""
        ...
