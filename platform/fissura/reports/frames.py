"""A leaderboard as a few lines, and as rows of a data frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fissura.core.text import count
from fissura.reports.classification import ClassRow, tables_of
from fissura.reports.classification_export import TITLES as CLASS_TITLES
from fissura.reports.columns import TITLES, flat
from fissura.reports.ranked_sheet import ends
from fissura.reports.standings import Ranked, Table


def leaders(tables: Sequence[Table], classes: Sequence[ClassRow], *, best_run: Path | None) -> list[str]:
    """A line for each condition with its leader and how many it leads, and one with the best run."""
    shown: list[tuple[str, str, Sequence[Ranked]]] = [
        (f"{table.data} {table.condition.split}, {table.condition.protocol}", table.remark, table.standings)
        for table in tables
    ]
    for own in tables_of(classes):
        first = own[0]
        shown.append((f"{first.data} {first.test_set.split}, {first.condition}", first.remark, own))
    lines = [
        f"{where}, {remark}: {_leader(rows)}" if remark else f"{where}: {_leader(rows)}"
        for where, remark, rows in shown
    ]
    return [*(lines or ["no evaluated run"]), *([f"best run: {best_run}"] if best_run else [])]


def _leader(rows: Sequence[Ranked]) -> str:
    first, by = rows[0], rows[0].ranked_by
    score = first.scores[by]
    title = TITLES[by] if by in TITLES else CLASS_TITLES[by]
    interval = f"{score.value:.4f} ({score.span('{:.4f}'.format, joint='..')})"
    return f"{first.recipe}, {title} {interval}, of {count(len(rows), 'configuration')}"


def board_rows(tables: Sequence[Table], classes: Sequence[ClassRow]) -> list[dict[str, Any]]:
    """A row for each configuration under each condition, with the columns of the exported table; classifiers
    have those that they share with it, and their own."""
    rows: list[dict[str, Any]] = flat(tables).to_pylist()
    return [*rows, *map(_class_row, classes)]


def _class_row(row: ClassRow) -> dict[str, Any]:
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
