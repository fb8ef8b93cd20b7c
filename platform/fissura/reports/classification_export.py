"""Tables of classification runs: CSV for programs; Markdown, LaTeX and HTML for people."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from markupsafe import Markup

from fissura.core import text
from fissura.reports import html
from fissura.reports.class_draws import CLASS_SCORES
from fissura.reports.classification import ClassRow
from fissura.reports.columns import differing
from fissura.reports.interference import TABLE_2, InterferenceTable
from fissura.reports.sheet import (
    ALL_FORMATS,
    APART,
    NAME,
    RUNS,
    Column,
    Document,
    Format,
    Sheet,
    TableCell,
    document_text,
    html_table,
    score_entry,
    sheet_of,
    write_document,
)
from fissura.reports.statistics import Difference, Interval

Rows = Sequence[ClassRow] | Sequence[InterferenceTable]

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
TITLES_2 = {
    "clean_f1": "Clean F1",
    "f1": "Interference F1",
    "false_alarm_rate": "False alarms",
    "missed_alarm_rate": "Missed alarms",
}
_INTERVALS = (
    "Each score has its 95 % interval, of a bootstrap over groups of images (duplicates and patches of one "
    "photograph together), and over seeds where there are several."
)
_ALARMS = (
    "False alarms are the share of images at the lowest level that were put above it, missed alarms the "
    "share of those above it that were put there."
)
EXPLANATION = (
    f"{_INTERVALS} {_ALARMS} Of more than two classes precision, recall and F1 are the mean over classes. "
    "Configurations of one group do not differ in F1 from the group's best at 5 % (paired bootstrap on the "
    "same images, Holm's correction)."
)
EXPLANATION_2 = (
    f"{_INTERVALS} {_ALARMS} Both are of the disturbed images. A change is after less before, on the same "
    "draws of images; its p-value is two-sided and not corrected for the number of changes."
)


def write_classification(
    rows: Rows, directory: Path, *, name: str, formats: Sequence[Format] = ALL_FORMATS, title: str
) -> list[Path]:
    """Writes `directory/name.<suffix>` in each of `formats`, whole or not at all; gives the paths."""
    return write_document(_document(rows, title), directory, name=name, formats=formats)


def as_text(rows: Rows, *, kind: Literal["csv", "md", "html", "latex"], title: str = "Classification") -> str:
    """The rows of `class_table`, or the tables of `interference_table`, as the text of one file."""
    return document_text(_document(rows, title), kind=kind)


def _document(rows: Rows, title: str) -> Document:
    tables = [row for row in rows if isinstance(row, InterferenceTable)]
    lines = [line for table in tables for line in _flat_table(table)]
    return Document(
        title=title,
        sheets=sheets(rows),
        explanation=_explanation(rows),
        empty=EMPTY,
        flat=_of_lines(lines or [_flat(row) for row in rows if isinstance(row, ClassRow)]),
        page=[html.part("header", title, found(rows), []), *sections(rows)],
    )


def _of_lines(lines: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One row a line, under the names of all; what none of them knows is an empty column of numbers."""
    names = dict.fromkeys(name for line in lines for name in line)
    columns = {name: pa.array([line.get(name) for line in lines]) for name in names}
    return pa.table(
        {name: c.cast(pa.float64()) if pa.types.is_null(c.type) else c for name, c in columns.items()}
    )


def sections(rows: Rows) -> list[Markup]:
    """A section of HTML for each table, as the sections of a report; nothing where there is no row."""
    parts = [
        html.part("section", sheet.heading, html.part("muted", sheet.caption) + html_table(sheet))
        for sheet in sheets(rows)
    ]
    return [*parts, html.part("muted", _explanation(rows))] if parts else []


def found(rows: Rows) -> str:
    """The first table's result in a sentence."""
    if not rows:
        return EMPTY
    best = rows[0]
    if isinstance(best, InterferenceTable):
        models = text.count(len(best.rows), "model")
        where = f"{text.count(best.images, 'disturbed image')} of {best.data}"
        if not best.rows:
            return f"No model classified all of the {where}, and the clean ones."
        scores = best.rows[0].scores
        named = f"F1 {_sentence(scores['f1'])}" if "f1" in scores else "no F1: all images are of one class"
        return f"On {where} the best of {models} ({best.rows[0].model}) has {named}."
    where = f"the {text.count(best.images, f'{best.condition} {best.test_set.split} image')}"
    where = f"{where} of {best.data}"
    if best.rank is None:
        return f"No configuration classified all of {where}."
    table = (best.test_set, best.condition)
    alike = [row for row in rows if isinstance(row, ClassRow) and (row.test_set, row.condition) == table]
    who = text.leaders(
        [row.recipe for row in alike if row.rank == 1], of=text.count(len(alike), "configuration")
    )
    remark = f" There is {best.remark}." if best.remark else ""
    return f"On {where}, {who} {TITLES[best.ranked_by]} {_sentence(best.scores[best.ranked_by])}.{remark}"


def _sentence(score: Interval) -> str:
    return f"{score.value:.3f} (95 % interval {score.low:.3f} to {score.high:.3f})"


def _explanation(rows: Rows) -> str:
    return EXPLANATION_2 if rows and isinstance(rows[0], InterferenceTable) else EXPLANATION


def sheets(rows: Rows) -> list[Sheet]:
    """One sheet for each test set and condition, or two for each interference table."""
    tables = [row for row in rows if isinstance(row, InterferenceTable)]
    if tables:
        return [sheet for table in tables for sheet in _interference(table)]
    several = [row for row in rows if isinstance(row, ClassRow)]
    return [_classes(list(own)) for _, own in groupby(several, key=lambda row: (row.test_set, row.condition))]


def _classes(rows: list[ClassRow]) -> Sheet:
    first = rows[0]
    by = first.ranked_by
    scored = [name for name in TITLES if name != by and any(name in row.scores for row in rows)]
    two = len(first.classes) == 2
    columns: list[Column[ClassRow]] = [
        Column(
            "Rank",
            lambda row: TableCell("—" if row.rank is None else str(row.rank), value=row.rank),
            numeric=True,
        ),
        Column(NAME, lambda row: TableCell(row.recipe)),
        Column(TITLES[by], _score(by), numeric=True),
    ]
    if any(row.differs for row in rows):
        every = [row.differs for row in rows]
        columns.append(
            Column(APART, lambda row: TableCell("\n".join(differing(row.differs, among=every)) or "—"))
        )
    columns.append(Column("Group", lambda row: TableCell(row.group or "—")))
    columns += [Column(TITLES[name], _score(name), numeric=True) for name in scored]
    # Of two classes the scores are those of the second already.
    levels_scored = first.classes[:1] if two else first.classes
    for index, level in enumerate(levels_scored if first.class_scores else ()):
        columns.append(Column(f"P / R / F1 of {level}", _class_scores(index), numeric=True))
    costs: list[Column[ClassRow]] = [
        Column("Classifier", lambda row: _bytes(row.classifier_bytes), numeric=True),
        Column("Classifier time", lambda row: _microseconds(row.classifier_microseconds), numeric=True),
        Column("Backbone", lambda row: _bytes(row.backbone_bytes), numeric=True),
        Column("Backbone time", lambda row: _microseconds(row.backbone_microseconds), numeric=True),
    ]
    columns += [cost for cost in costs if any(cost.entry(row).value is not None for row in rows)]
    columns += [
        Column("Seeds", lambda row: TableCell(str(len(row.seeds)), value=len(row.seeds)), numeric=True),
        Column(
            "Weights", lambda row: TableCell(text.scaled(row.parameters), value=row.parameters), numeric=True
        ),
    ]
    if any(row.notes for row in rows):
        columns.append(Column("Notes", lambda row: TableCell("; ".join(row.notes))))
    columns.append(Column(RUNS, lambda row: TableCell("\n".join(row.run_ids))))
    images = f"{text.count(first.images, 'image')} in {text.count(first.image_groups, 'group')}"
    levels = f"scores of {first.classes[1]}" if two else f"classes {', '.join(first.classes)}"
    levels = first.remark or levels
    return sheet_of(
        rows,
        columns,
        heading=f"{first.data}, {first.test_set.split}: {first.condition}",
        caption=f"{images}; {levels}; ranked by {TITLES[by]}; data {first.test_set.data_digest}",
        whisker=(TITLES[by], [row.scores.get(by) for row in rows]),
    )


def _score(name: str) -> Callable[[ClassRow], TableCell]:
    return lambda row: score_entry(row.scores.get(name))


def _class_scores(index: int) -> Callable[[ClassRow], TableCell]:
    def entry(row: ClassRow) -> TableCell:
        if not row.class_scores:
            return TableCell("—")
        precision, recall, f1 = (row.class_scores[name][index] for name in CLASS_SCORES)
        values = " / ".join(text.share(score.value) for score in (precision, recall, f1))
        return TableCell(values, f"F1 {text.share(f1.low)}–{text.share(f1.high)}", f1.value)

    return entry


def _bytes(value: int | None) -> TableCell:
    return TableCell("—") if value is None else TableCell(text.scaled(value, "B"), value=value)


def _microseconds(value: float | None) -> TableCell:
    if value is None:
        return TableCell("—")
    figure = f"{value:#.3g} µs" if value < 999.5 else f"{value / 1000:#.3g} ms"
    return TableCell(figure.replace(". ", " "), value=value)


def _interference(table: InterferenceTable) -> list[Sheet]:
    heading = f"{table.data}, {table.test_set.split}"
    kinds = ", ".join(kind.replace("_", " ") for kind in table.kinds)
    caption = f"{text.count(table.images, 'disturbed image')}: {kinds}; data {table.test_set.data_digest}"
    titles = list(TITLES_2.values())
    made = [
        Sheet(
            heading=f"{heading}: interference",
            caption="; ".join([caption, *table.notes]),
            titles=["Model", *titles],
            numeric=titles,
            rows=[
                [TableCell(row.model), *(score_entry(row.scores.get(name)) for name in TITLES_2)]
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
                *(score_entry(pair.differences.get(name), signed="signed") for name in TITLES_2),
            ]
            for pair in table.pairs
        ]
        made.append(Sheet(f"{heading}: what changed", caption, ["Before", "After", *titles], titles, changes))
    return made


def _flat(row: ClassRow) -> dict[str, Any]:
    own = (
        "condition", "rank", "recipe", "configuration", "group", "images", "image_groups", "classifier_bytes",
        "classifier_microseconds", "backbone_bytes", "backbone_microseconds", "parameters", "seconds",
    )  # fmt: skip
    flat: dict[str, Any] = {**row.test_set._asdict(), "data_name": row.data_name}
    flat |= {name: getattr(row, name) for name in own}
    for name in TITLES:
        flat |= _ends(name, row.scores.get(name))
    for name, scores in row.class_scores.items():
        for level, score in zip(row.classes, scores, strict=True):
            flat |= _ends(f"{name}:{level}", score)
    notes = [*([row.remark] if row.remark else []), *row.notes]
    lists = {"classes": row.classes, "seeds": row.seeds, "run_ids": row.run_ids, "notes": notes}
    flat |= {name: json.dumps(values) for name, values in lists.items()}
    flat["confusion"] = json.dumps(row.confusion.tolist())
    flat["differs"] = json.dumps(dict(row.differs), sort_keys=True)
    return flat


def _flat_table(table: InterferenceTable) -> list[dict[str, Any]]:
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
            line |= _ends(name, scores.get(name))
        lines.append(line)
    return lines


def _ends(name: str, score: Interval | Difference | None) -> dict[str, float | None]:
    """`name`, `name_low` and `name_high`, and `name_p` of a difference, as columns of a program's table."""
    if score is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    known: dict[str, float | None] = {
        name: score.value,
        f"{name}_low": score.low,
        f"{name}_high": score.high,
    }
    return known | {f"{name}_p": score.p} if isinstance(score, Difference) else known
