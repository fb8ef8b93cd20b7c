"""A leaderboard in a few lines, and as the rows of a data frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fissura.core.text import count
from fissura.reports.classification import ClassRow
from fissura.reports.classification_export import TITLES as CLASS_TITLES
from fissura.reports.columns import TITLES, flat
from fissura.reports.standings import Table
from fissura.reports.statistics import Interval


def leaders(tables: Sequence[Table], classes: Sequence[ClassRow], *, best_run: Path | None) -> list[str]:
    """A line for each condition with its leader and how many it leads, and one with the best run."""
    lines = []
    for table in tables:
        condition, first = table.condition, table.standings[0]
        where = f"{table.data} {condition.split}, {condition.protocol}"
        by, where = table.ranked_by, f"{where}, {table.remark}" if table.remark else where
        score = _score(TITLES[by], first.scores[by])
        lines.append(f"{where}: {first.recipe}, {score}, of {count(len(table.standings), 'configuration')}")
    for key in dict.fromkeys((row.test_set, row.condition) for row in classes):
        own = [row for row in classes if (row.test_set, row.condition) == key]
        where = f"{own[0].data} {key[0].split}, {key[1]}"
        named, where = own[0].ranked_by, f"{where}, {own[0].remark}" if own[0].remark else where
        score = _score(CLASS_TITLES[named], own[0].scores[named])
        lines.append(f"{where}: {own[0].recipe}, {score}, of {count(len(own), 'configuration')}")
    return [*(lines or ["no evaluated run"]), *([f"best run: {best_run}"] if best_run else [])]


def _score(title: str, score: Interval) -> str:
    return f"{title} {score.value:.4f} ({score.span('{:.4f}'.format, joint='..')})"


def board_rows(tables: Sequence[Table], classes: Sequence[ClassRow]) -> list[dict[str, Any]]:
    """A row for each configuration under each condition, with the columns of the exported table; classifiers
    have those that they share with it, and their own."""
    rows: list[dict[str, Any]] = flat(tables).to_pylist()
    return [*rows, *map(_class_row, classes)]


def _class_row(row: ClassRow) -> dict[str, Any]:
    scores = {
        f"{name}{end}": value
        for name, score in row.scores.items()
        for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
    }
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
