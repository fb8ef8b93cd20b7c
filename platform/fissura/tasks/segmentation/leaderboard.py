"""The leaderboard of segmentations as a `TaskLeaderboard`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fissura.records.store import Row
from fissura.reports.columns import TITLES, flat
from fissura.reports.export import write_leaderboard
from fissura.reports.leaderboard import Leaderboard
from fissura.reports.sheet import ALL_FORMATS, Format
from fissura.reports.standings import Standing, Table
from fissura.reports.task_leaderboard import RankedTable, TaskLeaderboard


@dataclass(frozen=True, repr=False)
class SegmentationLeaderboard(TaskLeaderboard):
    """See `TaskLeaderboard`."""

    leaderboard: Leaderboard

    @property
    def tables(self) -> Sequence[RankedTable]:
        """See `TaskLeaderboard`."""
        return [_table(table) for table in self.leaderboard.tables]

    def rows(self) -> list[dict[str, Any]]:
        """See `Brief`: the columns of the exported table."""
        rows: list[dict[str, Any]] = flat(self.leaderboard.tables).to_pylist()
        return rows

    plain = rows

    def divided(self, scored: Iterable[Row]) -> tuple[TaskLeaderboard, TaskLeaderboard]:
        """See `TaskLeaderboard`."""
        own, others = self.leaderboard.divided(scored)
        return SegmentationLeaderboard(own), SegmentationLeaderboard(others)

    def write(
        self, directory: Path, *, name: str = "leaderboard", formats: Sequence[Format] = ALL_FORMATS
    ) -> list[Path]:
        """See `TaskLeaderboard`."""
        return write_leaderboard(self.leaderboard, directory, name=name, formats=formats, title=self.title)


def _table(table: Table) -> RankedTable:
    return RankedTable(
        where=f"{table.data} {table.condition.split}, {table.condition.protocol}",
        remark=table.remark,
        by=TITLES[table.ranked_by],
        images=table.images,
        rows=table.standings,
        brief=[
            {
                "rank": standing.rank,
                "recipe": standing.recipe,
                **({} if table.no_crack else _f1(standing)),
                **(_false_alarms(standing) if table.crack_free else {}),
                "threshold": standing.thresholds[0],
                "seeds": len(standing.seeds),
                "parameters": standing.parameters,
                "seconds": round(standing.seconds),
                "run": ", ".join(standing.run_ids),
            }
            for standing in table.standings
        ],
        notes=[f"note: {standing.recipe}: {note}" for standing in table.standings for note in standing.notes],
    )


def _f1(standing: Standing) -> dict[str, Any]:
    f1 = standing.scores.get("f1")
    return {
        "F1": f1 and f1.value,
        "95 %": f1 and f1.span("{:.4f}".format, joint=".."),
        **{name: _value(standing, name) for name in ("precision", "recall")},
    }


def _false_alarms(standing: Standing) -> dict[str, Any]:
    return {
        "false alarms/image": _value(standing, "false_alarms_per_image"),
        "false alarms/Mpx": _value(standing, "false_alarms_per_megapixel"),
    }


def _value(standing: Standing, name: str) -> float | None:
    """A score of a standing; None where it is undefined."""
    score = standing.scores.get(name)
    return None if score is None else score.value
