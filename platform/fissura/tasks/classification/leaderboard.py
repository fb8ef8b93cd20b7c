"""The leaderboard of classifiers as a `TaskLeaderboard`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fissura.reports.classification import ClassRow, tables_of
from fissura.reports.classification_export import TITLES, write_classification
from fissura.reports.ranked_sheet import ends
from fissura.reports.sheet import ALL_FORMATS, Format
from fissura.reports.task_leaderboard import RankedTable, TaskLeaderboard


@dataclass(frozen=True, repr=False)
class ClassLeaderboard(TaskLeaderboard):
    """See `TaskLeaderboard`; its rows are those of `class_table`."""

    classes: tuple[ClassRow, ...]
    title = "Classifiers"

    @property
    def tables(self) -> Sequence[RankedTable]:
        """See `TaskLeaderboard`."""
        return [_table(rows) for rows in tables_of(self.classes)]

    def rows(self) -> list[dict[str, Any]]:
        """See `Brief`: the columns that it shares with segmentations, and its own."""
        return [_row(row) for row in self.classes]

    def plain(self) -> list[dict[str, Any]]:
        """See `TaskLeaderboard`."""
        return [_plain(row) for row in self.classes]

    def divided(self, scored: Iterable[ClassRow]) -> tuple[TaskLeaderboard, TaskLeaderboard]:
        """See `TaskLeaderboard`."""
        conditions = {(row.test_set, row.condition) for row in scored}
        own = tuple(row for row in self.classes if (row.test_set, row.condition) in conditions)
        others = tuple(row for row in self.classes if (row.test_set, row.condition) not in conditions)
        return ClassLeaderboard(own), ClassLeaderboard(others)

    def write(
        self, directory: Path, *, name: str = "leaderboard", formats: Sequence[Format] = ALL_FORMATS
    ) -> list[Path]:
        """See `TaskLeaderboard`."""
        return write_classification(self.classes, directory, name=name, formats=formats, title=self.title)


def _table(rows: Sequence[ClassRow]) -> RankedTable:
    first = rows[0]
    return RankedTable(
        where=f"{first.data} {first.test_set.split}, {first.condition}",
        remark=first.remark,
        by=TITLES[first.ranked_by],
        images=first.images,
        rows=rows,
        brief=[_brief(row) for row in rows],
    )


def _brief(row: ClassRow) -> dict[str, Any]:
    f1 = row.scores.get("f1")
    scored = {"F1": f1.value, "95 %": f1.span("{:.4f}".format, joint="..")} if f1 else {}
    shown = {name: row.scores.get(name) for name in ("accuracy", "false_alarm_rate", "missed_alarm_rate")}
    return {
        "rank": row.rank,
        "recipe": row.recipe,
        **scored,
        **{name.removesuffix("_rate"): score.value if score else None for name, score in shown.items()},
        "bytes": row.classifier_bytes,
        "µs": row.classifier_microseconds,
        "run": ", ".join(row.run_ids),
    }


def _plain(row: ClassRow) -> dict[str, Any]:
    return {
        "dataset": row.test_set.dataset,
        "data_name": row.data_name,
        "data_digest": row.test_set.data_digest,
        "split": row.test_set.split,
        "condition": row.condition,
        "rank": row.rank,
        "recipe": row.recipe,
        "images": row.images,
        "scores": {name: vars(score) for name, score in row.scores.items()},
        **({"remark": row.remark} if row.remark else {}),
        "classifier_bytes": row.classifier_bytes,
        "classifier_microseconds": row.classifier_microseconds,
        "parameters": row.parameters,
        "runs": list(row.run_ids),
    }


def _row(row: ClassRow) -> dict[str, Any]:
    scores = {key: value for name, score in row.scores.items() for key, value in ends(name, score).items()}
    return {
        **row.test_set._asdict(),
        "data_name": row.data_name,
        "condition": row.condition,
        "rank": row.rank,
        "recipe": row.recipe,
        "configuration": row.configuration,
        "group": row.group,
        "seeds": list(row.seeds),
        "images": row.images,
        **scores,
        "classifier_bytes": row.classifier_bytes,
        "classifier_microseconds": row.classifier_microseconds,
        "parameters": row.parameters,
        "seconds": row.seconds,
        "run_ids": list(row.run_ids),
        "notes": [*([row.remark] if row.remark else []), *row.notes],
    }
