"""The leaderboard of any task: what printing, exports and the service's default model ask of it."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from fissura.core.brief import Brief
from fissura.core.text import count
from fissura.reports.sheet import ALL_FORMATS, Format
from fissura.reports.standings import Ranked


class RankedTable(NamedTuple):
    """The configurations under one condition, best first.

    `where` names data, split, and protocol or condition; `remark` is what a reader must know of the images,
    or empty; `by` is the title of the score that ranks. `brief` has a row for each configuration with what a
    terminal has room for, `notes` a sentence for each that needs one.
    """

    where: str
    remark: str
    by: str
    images: int
    rows: Sequence[Ranked]
    brief: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()

    @property
    def leader(self) -> str:
        """The first configuration, its score, and how many it leads."""
        first = self.rows[0]
        score = first.scores[first.ranked_by]
        interval = f"{score.value:.4f} ({score.span('{:.4f}'.format, joint='..')})"
        return f"{first.recipe}, {self.by} {interval}, of {count(len(self.rows), 'configuration')}"


class TaskLeaderboard(Brief):
    """Evaluated runs, ranked, like only with like."""

    title = "Leaderboard"

    @property
    @abstractmethod
    def tables(self) -> Sequence[RankedTable]:
        """A table for each condition; none where no run has been evaluated."""

    @abstractmethod
    def plain(self) -> list[dict[str, Any]]:
        """A row for each configuration under each condition, as JSON types."""

    @abstractmethod
    def divided(self, scored: Iterable[Any]) -> "tuple[TaskLeaderboard, TaskLeaderboard]":
        """The tables that these scores of an evaluation stand in, and the others."""

    @abstractmethod
    def write(
        self, directory: Path, *, name: str = "leaderboard", formats: Sequence[Format] = ALL_FORMATS
    ) -> list[Path]:
        """Writes `directory/name.<suffix>` in each of `formats`, whole or not at all; gives the paths."""

    @property
    def best_run(self) -> Path | None:
        """The run that leads the first table that has a leader; of several seeds the first."""
        rows = [row for table in self.tables for row in table.rows]
        return next((row.directories[0] for row in rows if row.rank == 1), None)

    def lines(self) -> list[str]:
        """Who leads under each condition, and the best run."""
        lines = [
            f"{table.where}, {table.remark}: {table.leader}"
            if table.remark
            else f"{table.where}: {table.leader}"
            for table in self.tables
        ]
        best = [f"best run: {self.best_run}"] if self.best_run else []
        return [*(lines or ["no evaluated run"]), *best]


@dataclass(frozen=True, repr=False)
class Leaderboards(TaskLeaderboard):
    """The boards of several tasks as one, in the order of the registry of tasks."""

    boards: tuple[TaskLeaderboard, ...] = ()

    @property
    def tables(self) -> Sequence[RankedTable]:
        """See `TaskLeaderboard`."""
        return [table for board in self.boards for table in board.tables]

    def rows(self) -> list[dict[str, Any]]:
        """See `Brief`; the tasks share the columns that they have in common."""
        return list(chain.from_iterable(board.rows() for board in self.boards))

    def plain(self) -> list[dict[str, Any]]:
        """See `TaskLeaderboard`."""
        return list(chain.from_iterable(board.plain() for board in self.boards))

    def divided(self, scored: Iterable[Any]) -> tuple[TaskLeaderboard, TaskLeaderboard]:
        """See `TaskLeaderboard`."""
        scores = list(scored)
        parts = [board.divided(scores) for board in self.boards]
        return Leaderboards(tuple(own for own, _ in parts)), Leaderboards(
            tuple(others for _, others in parts)
        )

    def write(
        self, directory: Path, *, name: str = "leaderboard", formats: Sequence[Format] = ALL_FORMATS
    ) -> list[Path]:
        """See `TaskLeaderboard`: one file a task and format, those of later tasks with the task's title."""
        files: list[Path] = []
        for index, board in enumerate(board for board in self.boards if board.tables):
            own = name if index == 0 else f"{name}-{board.title.lower()}"
            files += board.write(directory, name=own, formats=formats)
        return files
