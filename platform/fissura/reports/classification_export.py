"""Tables of classification runs: CSV for programs; Markdown, LaTeX and HTML for people."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from markupsafe import Markup

from fissura.core import text
from fissura.reports import html
from fissura.reports.class_draws import CLASS_SCORES
from fissura.reports.classification import ClassRow, tables_of
from fissura.reports.ranked_sheet import ends, number, ranked_sheet
from fissura.reports.sheet import (
    ALL_FORMATS,
    Column,
    Document,
    Format,
    Sheet,
    TableCell,
    document_text,
    section,
    write_document,
)
from fissura.reports.statistics import Interval

Rows = Sequence[ClassRow]

EMPTY = "No classification run has been evaluated yet."
TITLES = {
    "f1": "F1",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "false_alarm_rate": "False alarms",
    "missed_alarm_rate": "Missed alarms",
    "roc_auc": "ROC-AUC",
}
INTERVALS = (
    "Each score has its 95 % interval, of a bootstrap over groups of images (duplicates and patches of one "
    "photograph together), and over seeds where there are several."
)
ALARMS = (
    "False alarms are the share of images at the lowest level that were put above it, missed alarms the "
    "share of those above it that were put there."
)
EXPLANATION = (
    f"{INTERVALS} {ALARMS} Of more than two classes precision, recall and F1 are the mean over classes. "
    "Configurations of one group do not differ in F1 from the group's best at 5 % (paired bootstrap on the "
    "same images, Holm's correction)."
)


def write_classification(
    rows: Rows, directory: Path, *, name: str, formats: Sequence[Format] = ALL_FORMATS, title: str
) -> list[Path]:
    """Writes `directory/name.<suffix>` in each of `formats`, whole or not at all; gives the paths."""
    return write_document(_document(rows, title), directory, name=name, formats=formats)


def as_text(rows: Rows, *, kind: Literal["csv", "md", "html", "latex"], title: str = "Classification") -> str:
    """The rows of `class_table` as the text of one file."""
    return document_text(_document(rows, title), kind=kind)


def _document(rows: Rows, title: str) -> Document:
    return Document(
        title=title,
        sheets=sheets(rows),
        explanation=EXPLANATION,
        empty=EMPTY,
        flat=of_lines([_flat(row) for row in rows]),
        page=[html.part("header", title, found(rows), []), *sections(rows)],
    )


def of_lines(lines: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One row a line, under the names of all; what none of them knows is an empty column of numbers."""
    names = dict.fromkeys(name for line in lines for name in line)
    columns = {name: pa.array([line.get(name) for line in lines]) for name in names}
    return pa.table(
        {name: c.cast(pa.float64()) if pa.types.is_null(c.type) else c for name, c in columns.items()}
    )


def sections(rows: Rows) -> list[Markup]:
    """A section of HTML for each table, as the sections of a report; nothing where there is no row."""
    parts = [section(sheet) for sheet in sheets(rows)]
    return [*parts, html.part("muted", EXPLANATION)] if parts else []


def found(rows: Rows) -> str:
    """The first table's result in a sentence."""
    if not rows:
        return EMPTY
    alike = tables_of(rows)[0]
    best = alike[0]
    where = f"the {text.count(best.images, f'{best.condition} {best.test_set.split} image')}"
    where = f"{where} of {best.data}"
    if best.rank is None:
        return f"No configuration classified all of {where}."
    who = text.leaders(
        [row.recipe for row in alike if row.rank == 1], of=text.count(len(alike), "configuration")
    )
    remark = f" There is {best.remark}." if best.remark else ""
    return f"On {where}, {who} {TITLES[best.ranked_by]} {sentence(best.scores[best.ranked_by])}.{remark}"


def sentence(score: Interval) -> str:
    """A score and its interval."""
    return f"{text.share(score.value)} ({score.sentence(text.share)})"


def sheets(rows: Rows) -> list[Sheet]:
    """One sheet for each test set and condition."""
    return [_sheet(own) for own in tables_of(rows)]


def _sheet(rows: Rows) -> Sheet:
    first = rows[0]
    two = len(first.classes) == 2
    # Of two classes the scores are those of the second already.
    scored = first.classes[:1] if two else first.classes
    measures = [
        Column(f"P / R / F1 of {level}", _class_scores(index), numeric=True)
        for index, level in enumerate(scored if first.class_scores else ())
    ]
    costs: list[Column[ClassRow]] = [
        Column("Classifier", lambda row: _bytes(row.classifier_bytes), numeric=True),
        Column("Classifier time", lambda row: _microseconds(row.classifier_microseconds), numeric=True),
        Column("Backbone", lambda row: _bytes(row.backbone_bytes), numeric=True),
        Column("Backbone time", lambda row: _microseconds(row.backbone_microseconds), numeric=True),
    ]
    known = [cost for cost in costs if any(cost.entry(row).value is not None for row in rows)]
    images = f"{text.count(first.images, 'image')} in {text.count(first.image_groups, 'group')}"
    levels = f"scores of {first.classes[1]}" if two else f"classes {', '.join(first.classes)}"
    by = TITLES[first.ranked_by]
    return ranked_sheet(
        rows,
        titles=TITLES,
        measures=[*measures, *known],
        costs=[],
        versions=lambda _: "",
        heading=f"{first.data}, {first.test_set.split}: {first.condition}",
        caption=f"{images}; {first.remark or levels}; ranked by {by}; data {first.test_set.data_digest}",
    )


def _class_scores(index: int) -> Callable[[ClassRow], TableCell]:
    def entry(row: ClassRow) -> TableCell:
        if not row.class_scores:
            return TableCell("—")
        precision, recall, f1 = (row.class_scores[name][index] for name in CLASS_SCORES)
        values = " / ".join(text.share(score.value) for score in (precision, recall, f1))
        return TableCell(values, f"F1 {f1.span(text.share)}", f1.value)

    return entry


def _bytes(value: int | None) -> TableCell:
    return number("" if value is None else text.scaled(value, "B"), value)


def _microseconds(value: float | None) -> TableCell:
    if value is None:
        return TableCell("—")
    figure = f"{value:#.3g} µs" if value < 999.5 else f"{value / 1000:#.3g} ms"
    return TableCell(figure.replace(". ", " "), value=value)


def _flat(row: ClassRow) -> dict[str, Any]:
    own = (
        "condition", "rank", "recipe", "configuration", "group", "images", "image_groups", "classifier_bytes",
        "classifier_microseconds", "backbone_bytes", "backbone_microseconds", "parameters", "seconds",
    )  # fmt: skip
    flat: dict[str, Any] = {**row.test_set._asdict(), "data_name": row.data_name}
    flat |= {name: getattr(row, name) for name in own}
    for name in TITLES:
        flat |= ends_or_none(name, row.scores.get(name))
    for name, scores in row.class_scores.items():
        for level, score in zip(row.classes, scores, strict=True):
            flat |= ends(f"{name}:{level}", score)
    notes = [*([row.remark] if row.remark else []), *row.notes]
    lists = {"classes": row.classes, "seeds": row.seeds, "run_ids": row.run_ids, "notes": notes}
    flat |= {name: json.dumps(values) for name, values in lists.items()}
    flat["confusion"] = json.dumps(row.confusion.tolist())
    flat["differs"] = json.dumps(dict(row.differs), sort_keys=True)
    return flat


def ends_or_none(name: str, score: Interval | None) -> dict[str, float | None]:
    """As `ends`; of an undefined score three empty columns."""
    return dict.fromkeys((name, f"{name}_low", f"{name}_high")) if score is None else ends(name, score)
