"""What a task tells of a study's results: the part of a `Task` that leaderboards and reports ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup

from fissura.core.progress import Say
from fissura.reports.classification import ClassRow
from fissura.reports.figures import Plot
from fissura.reports.leaderboard import Leaderboard
from fissura.reports.pictures import Load

if TYPE_CHECKING:
    import optuna

    from fissura.studies.study import Plan, Study


@dataclass(frozen=True)
class RankedRuns:
    """The evaluated runs of a study, ranked: the leaderboard's `files`, which are written, and its rows;
    what the report says of them.

    Rows of the study's own data are a `board`, or `classes`. A `board` has a section of its own in the
    report, with pictures if `gallery` loads them; in its place stands `held_out`, and `found` in a sentence.
    `plots` and `cross_data` are more sections; `remark` ends what is said of the data.
    """

    files: Sequence[Path]
    board: Leaderboard | None = None
    classes: tuple[ClassRow, ...] = ()
    gallery: Load | None = None
    held_out: Sequence[Markup] | None = None
    found: str = ""
    plots: Mapping[str, Sequence[Plot]] = field(default_factory=dict)
    cross_data: Sequence[Markup] = ()
    remark: str = ""


class TaskResults(Protocol):
    """Ranks the evaluated runs of a study."""

    def rank(self, study: "Study", plan: "Plan", trials: "optuna.Study", *, say: Say) -> RankedRuns:
        """Ranks what was evaluated on the study's own data, and writes its leaderboard. `say` is told of what
        is passed over."""
        ...
