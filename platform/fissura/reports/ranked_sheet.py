"""What the tables of both tasks have in common, once as people read it, once as programs do."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from fissura.core import text
from fissura.reports.crack_scores import FALSE_ALARMS
from fissura.reports.differences import differing
from fissura.reports.sheet import APART, NAME, RUNS, Column, Sheet, TableCell, score_entry, sheet_of
from fissura.reports.standings import Ranked
from fissura.reports.statistics import Difference, Interval

R = TypeVar("R", bound=Ranked)


def ranked_sheet(
    rows: Sequence[R],
    *,
    titles: Mapping[str, str],
    measures: Sequence[Column[R]],
    costs: Sequence[Column[R]],
    versions: Callable[[R], str],
    heading: str,
    caption: str,
) -> Sheet:
    """The table as people read it, in the columns that it has something to say in.

    Rank, name and what the table is ranked by come first, so that a narrow screen shows them.

    Args:
        titles: of the scores to be shown.
        measures: the task's own, after the scores.
        costs: the task's own, after the number of weights.
        versions: small print of the runs of a row.
    """
    by, every = rows[0].ranked_by, [row.differs for row in rows]
    scored = [name for name in titles if name != by and any(name in row.scores for row in rows)]
    scores: list[Column[R]] = [Column(titles[name], _score(name), numeric=True) for name in scored]
    columns: list[Column[R]] = [
        Column("Rank", lambda row: number(str(row.rank), row.rank), numeric=True),
        Column(NAME, lambda row: TableCell(row.recipe)),
        Column(titles[by], _score(by), numeric=True),
    ]
    if any(every):
        columns.append(
            Column(APART, lambda row: TableCell("\n".join(differing(row.differs, among=every)) or "—"))
        )
    columns += [
        Column("Group", lambda row: TableCell(row.group or "—")),
        *scores,
        *measures,
        Column("Seeds", lambda row: number(str(len(row.seeds)), len(row.seeds)), numeric=True),
        Column("Weights", lambda row: number(text.scaled(row.parameters), row.parameters), numeric=True),
        *costs,
    ]
    if any(row.notes for row in rows):
        columns.append(Column("Notes", lambda row: TableCell("; ".join(row.notes))))
    columns.append(Column(RUNS, lambda row: TableCell("\n".join(row.run_ids), versions(row))))
    whisker = (titles[by], [row.scores.get(by) for row in rows])
    return sheet_of(rows, columns, heading=heading, caption=caption, whisker=whisker)


def number(shown: str, value: float | None) -> TableCell:
    """A number that is sorted by its value; a dash where there is none."""
    return TableCell("—") if value is None else TableCell(shown, value=value)


def _score(name: str) -> Callable[[Ranked], TableCell]:
    def entry(row: Ranked) -> TableCell:
        score = row.scores.get(name)
        if score is None or name not in FALSE_ALARMS:
            return score_entry(score)
        shown = partial(figure, name)
        return TableCell(shown(score.value), score.span(shown), score.value)

    return entry


def figure(name: str, value: float) -> str:
    """The value of a score: a share with three digits, or a rate of false alarms."""
    return text.number(value) if name in FALSE_ALARMS else text.share(value)


def ends(name: str, score: Interval) -> dict[str, float | None]:
    """`name`, `name_low` and `name_high`, and `name_p` of a difference, as columns of a program's table."""
    known: dict[str, float | None] = {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    return known | {f"{name}_p": score.p} if isinstance(score, Difference) else known
