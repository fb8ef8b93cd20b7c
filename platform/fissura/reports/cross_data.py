"""One study on several data sets: its runs as rows, the data sets as columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fissura.core import text
from fissura.reports import html
from fissura.reports.classification import ClassRow
from fissura.reports.leaderboard import Leaderboard
from fissura.reports.statistics import Interval


@dataclass(frozen=True)
class DataScore:
    """What a configuration scored on one data set; `measured` is the protocol, or the condition of images."""

    measured: str
    data: str
    recipe: str
    runs: tuple[str, ...]
    f1: Interval | None


def of_data(board: Leaderboard, digest: str) -> tuple[Leaderboard, Leaderboard]:
    """The tables of what this digest names, and those of all other data."""
    own = [table for table in board.tables if table.condition.data_digest == digest]
    others = [table for table in board.tables if table.condition.data_digest != digest]
    return Leaderboard(tuple(own)), Leaderboard(tuple(others))


def scores_of_tables(board: Leaderboard) -> list[DataScore]:
    """Those of segmentations."""
    return [
        DataScore(
            table.condition.protocol,
            f"{table.data}, {table.condition.split}, threshold {table.condition.threshold_source}",
            standing.recipe,
            standing.run_ids,
            standing.scores.get("f1"),
        )
        for table in board.tables
        for standing in table.standings
    ]


def scores_of_classes(rows: Sequence[ClassRow]) -> list[DataScore]:
    """Those of classifiers."""
    return [
        DataScore(
            row.condition, f"{row.data}, {row.test_set.split}", row.recipe, row.run_ids, row.scores.get("f1")
        )
        for row in rows
    ]


def cross_data(own: Sequence[DataScore], others: Sequence[DataScore]) -> list[Markup]:
    """A table of F1 for each protocol or condition that `others` have: the study's own data first; nothing
    where it was scored on its own data alone."""
    parts = []
    for measured in dict.fromkeys(score.measured for score in others):
        shown = [score for score in (*own, *others) if score.measured == measured]
        columns = list(dict.fromkeys(score.data for score in shown))
        f1_of = {(score.recipe, score.runs, score.data): score.f1 for score in shown}
        rows = [
            [
                html.Cell(recipe, recipe, ", ".join(runs)),
                *(_cell(f1_of.get((recipe, runs, data))) for data in columns),
            ]
            for recipe, runs in dict.fromkeys((score.recipe, score.runs) for score in shown)
        ]
        parts.append(
            html.part("section", f"F1, {measured}", html.table(["Recipe", *columns], rows, numeric=columns))
        )
    return parts


def _cell(f1: Interval | None) -> html.Cell:
    if f1 is None:
        return html.Cell("—", "")
    return html.Cell(text.share(f1.value), f1.value, f1.span(text.share))
