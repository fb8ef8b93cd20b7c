"""Tables of what interference costs classifiers: CSV for programs; Markdown, LaTeX and HTML for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fissura.core import text
from fissura.reports import html
from fissura.reports.classification_export import ALARMS, EMPTY, INTERVALS, ends_or_none, of_lines, sentence
from fissura.reports.interference import TABLE_2, InterferenceTable
from fissura.reports.sheet import Document, Sheet, TableCell, document_text, score_entry, section
from fissura.reports.statistics import Difference, Interval

Tables = Sequence[InterferenceTable]

TITLES = {
    "clean_f1": "Clean F1",
    "f1": "Interference F1",
    "false_alarm_rate": "False alarms",
    "missed_alarm_rate": "Missed alarms",
}
EXPLANATION = (
    f"{INTERVALS} {ALARMS} Both are of the disturbed images. A change is after less before, on the same "
    "draws of images; its p-value is two-sided and not corrected for the number of changes."
)


def as_text(
    tables: Tables, *, kind: Literal["csv", "md", "html", "latex"], title: str = "Classification"
) -> str:
    """The tables as the text of one file."""
    sheets = [sheet for table in tables for sheet in _sheets(table)]
    parts = [section(sheet) for sheet in sheets]
    document = Document(
        title=title,
        sheets=sheets,
        explanation=EXPLANATION,
        empty=EMPTY,
        flat=of_lines([line for table in tables for line in _flat(table)]),
        page=[
            html.part("header", title, found(tables), []),
            *parts,
            *([html.part("muted", EXPLANATION)] if parts else []),
        ],
    )
    return document_text(document, kind=kind)


def found(tables: Tables) -> str:
    """The first table's result in a sentence."""
    if not tables:
        return EMPTY
    best = tables[0]
    models = text.count(len(best.rows), "model")
    where = f"{text.count(best.images, 'disturbed image')} of {best.data}"
    if not best.rows:
        return f"No model classified all of the {where}, and the clean ones."
    scores = best.rows[0].scores
    named = f"F1 {sentence(scores['f1'])}" if "f1" in scores else "no F1: all images are of one class"
    return f"On {where} the best of {models} ({best.rows[0].model}) has {named}."


def _sheets(table: InterferenceTable) -> list[Sheet]:
    heading = f"{table.data}, {table.test_set.split}"
    kinds = ", ".join(kind.replace("_", " ") for kind in table.kinds)
    caption = f"{text.count(table.images, 'disturbed image')}: {kinds}; data {table.test_set.data_digest}"
    titles = list(TITLES.values())
    made = [
        Sheet(
            heading=f"{heading}: interference",
            caption="; ".join([caption, *table.notes]),
            titles=["Model", *titles],
            numeric=titles,
            rows=[
                [TableCell(row.model), *(score_entry(row.scores.get(name)) for name in TITLES)]
                for row in table.rows
            ],
            whisker=("Interference F1", [row.scores.get("f1") for row in table.rows]),
        )
    ]
    if table.pairs:
        changes = [
            [
                TableCell(pair.before),
                TableCell(pair.after),
                *(score_entry(pair.differences.get(name)) for name in TITLES),
            ]
            for pair in table.pairs
        ]
        made.append(Sheet(f"{heading}: what changed", caption, ["Before", "After", *titles], titles, changes))
    return made


def _flat(table: InterferenceTable) -> list[dict[str, Any]]:
    """A line a model, then a line a pair: the scores of `model` less those of the model in `less`."""
    common = {
        **table.test_set._asdict(), "data_name": table.data_name, "kinds": json.dumps(table.kinds),
        "images": table.images,
    }  # fmt: skip
    lines: list[dict[str, Any]] = []
    named: list[tuple[str, str, Mapping[str, Interval | Difference]]] = [
        *((row.model, "", row.scores) for row in table.rows),
        *((pair.after, pair.before, pair.differences) for pair in table.pairs),
    ]
    for model, less, scores in named:
        line = {**common, "model": model, "less": less}
        for name in TABLE_2:
            line |= ends_or_none(name, scores.get(name))
        lines.append(line)
    return lines
