"""A table as people read it, and a ranking as files: Parquet and CSV for programs, the others for people."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from fissura.core.files import replacing, write_text
from fissura.reports import html
from fissura.reports.statistics import Difference, Interval

Format = Literal["parquet", "csv", "md", "html", "latex"]
SUFFIXES: dict[Format, str] = {"parquet": "parquet", "csv": "csv", "md": "md", "html": "html", "latex": "tex"}
ALL_FORMATS: tuple[Format, ...] = get_args(Format)
NAME, APART, RUNS = "Recipe", "Differs in", "Runs"
"""The columns that a page and a paper treat apart: what a row is called, what tells it from its neighbours
(small print of its name on a page), and the runs that it is of (not for a paper)."""

R = TypeVar("R")


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, more about it in small print, and the number that it sorts by (None: its text)."""

    text: str
    detail: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of the table that people read, of rows of one kind."""

    title: str
    entry: Callable[[R], TableCell]
    numeric: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table as people read it; `whisker` is the column whose interval the page draws, with its values (None
    of a row without one)."""

    heading: str
    caption: str
    titles: Sequence[str]
    numeric: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    whisker: tuple[str, Sequence[Interval | None]] | None = None


@dataclass(frozen=True, kw_only=True)
class Document:
    """A ranking as files.

    `sheets` with their `explanation` are what Markdown and LaTeX hold (`empty` where there is none), `flat`
    is every number for programs, `page` the body of the HTML page. Columns named in `unprinted` are in the
    Parquet file alone.
    """

    title: str
    sheets: Sequence[Sheet]
    explanation: str
    empty: str
    flat: pa.Table
    page: Sequence[Markup]
    unprinted: Sequence[str] = ()


def write_document(
    document: Document, directory: Path, *, name: str = "leaderboard", formats: Sequence[Format]
) -> list[Path]:
    """Writes `directory/name.<suffix>` in each of `formats`, whole or not at all; gives the paths."""
    paths = []
    for kind in formats:
        path = directory / f"{name}.{SUFFIXES[kind]}"
        if kind == "parquet":
            with replacing(path) as scratch:
                pq.write_table(document.flat, scratch, compression="zstd")
        else:
            write_text(path, document_text(document, kind=kind))
        paths.append(path)
    return paths


def document_text(document: Document, *, kind: Literal["csv", "md", "html", "latex"]) -> str:
    """The ranking as the text of one file."""
    if kind == "csv":
        return _csv(document.flat.drop_columns(list(document.unprinted)))
    if kind == "html":
        return html.page(document.title, *document.page)
    if not document.sheets:
        return document.empty + "\n"
    if kind == "latex":
        return "\n".join(latex(sheet, explanation=document.explanation) for sheet in document.sheets)
    return "\n".join([*(markdown(sheet) for sheet in document.sheets), document.explanation + "\n"])


def _csv(table: pa.Table) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow(json.dumps(value) if isinstance(value, list) else value for value in row.values())
    return buffer.getvalue()


def sheet_of(
    rows: Sequence[R],
    columns: Sequence[Column[R]],
    *,
    heading: str,
    caption: str,
    whisker: tuple[str, Sequence[Interval | None]] | None = None,
) -> Sheet:
    """The sheet of these rows."""
    return Sheet(
        heading,
        caption,
        [column.title for column in columns],
        [column.title for column in columns if column.numeric],
        [[column.entry(row) for column in columns] for row in rows],
        whisker,
    )


def score_entry(score: Interval | None) -> TableCell:
    """A score, or a change, with its interval in small print; behind that of a change its p-value."""
    if score is None:
        return TableCell("—")
    if isinstance(score, Difference):
        span = score.span("{:+.3f}".format, joint=" to ")
        return TableCell(f"{score.value:+.3f}", f"{span}, p {score.p:.3f}", score.value)
    return TableCell(f"{score.value:.3f}", score.span("{:.3f}".format, joint="–"), score.value)


def markdown(sheet: Sheet) -> str:
    """The sheet under a heading of the third level."""

    def cell(entry: TableCell) -> str:
        return _markdown_escaped(f"{entry.text} [{entry.detail}]" if entry.detail else entry.text)

    lines = [
        f"### {_markdown_escaped(sheet.heading)}",
        "",
        _markdown_escaped(sheet.caption),
        "",
        _markdown_row([_markdown_escaped(title) for title in sheet.titles]),
        _markdown_row(["---:" if title in sheet.numeric else "---" for title in sheet.titles]),
        *(_markdown_row([cell(entry) for entry in row]) for row in sheet.rows),
        "",
    ]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_escaped(plain: str) -> str:
    for mark in "\\|*_`<[":
        plain = plain.replace(mark, f"\\{mark}")
    return plain.replace("\n", ", ")


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
        "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
        ">": r"\textgreater{}", "–": "--", "—": "---", "\n": ", ",
    }
)  # fmt: skip


def latex(sheet: Sheet, *, explanation: str) -> str:
    """The sheet as a table for booktabs, without its column of runs."""
    kept = [index for index, title in enumerate(sheet.titles) if title != RUNS]

    def cell(entry: TableCell) -> str:
        # A row that starts with "[" would be read as an argument of the line break before it.
        small = f" {{\\scriptsize ({entry.detail.translate(_LATEX)})}}" if entry.detail else ""
        return entry.text.translate(_LATEX) + small

    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{f'{sheet.heading}. {sheet.caption}. {explanation}'.translate(_LATEX)}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if sheet.titles[i] in sheet.numeric else 'l' for i in kept)}}}",
        r"    \toprule",
        f"    {' & '.join(sheet.titles[i].translate(_LATEX) for i in kept)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(cell(row[i]) for i in kept)} \\\\" for row in sheet.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def section(sheet: Sheet) -> Markup:
    """The sheet with its heading and caption, as a section of a page."""
    return html.part("section", sheet.heading, html.part("muted", sheet.caption) + html_table(sheet))


def html_table(sheet: Sheet) -> Markup:
    """The sheet as a sortable table in the pages' style; what tells a row apart stands below its name."""
    apart = sheet.titles.index(APART) if APART in sheet.titles else None
    titles = [title for index, title in enumerate(sheet.titles) if index != apart]
    rows = []
    for row in sheet.rows:
        lines = row[apart].text.split("\n") if apart is not None else []
        rows.append(
            [
                _cell(entry, lines if sheet.titles[index] == NAME else [])
                for index, entry in enumerate(row)
                if index != apart
            ]
        )
    column, spread = sheet.whisker or ("", ())
    if known := [end for score in spread if score is not None and score.ends for end in score.ends]:
        low, high = min(known), max(known)
        place = titles.index(column) + 1
        for cells, score in zip(rows, spread, strict=True):
            cells.insert(place, _whisker(score, low=low, high=high))
        titles.insert(place, "95 % interval")
    return html.table(titles, rows, numeric=sheet.numeric)


def _cell(entry: TableCell, lines: Sequence[str]) -> html.Cell:
    value = entry.value if entry.value is not None else entry.text
    return html.Cell(entry.text, value, entry.detail, lines)


def _whisker(score: Interval | None, *, low: float, high: float) -> html.Cell:
    """The cell of a score's interval, a dot and a line on the scale that the rows share."""
    if score is None or score.ends is None:
        return html.Cell("—", "")
    start, end = score.ends
    ends = [_across(value, low, high) for value in (start, score.value, end)]
    return html.Cell(html.part("whisker", *ends), score.value)


def _across(value: float, low: float, high: float) -> float:
    return 5 + 120 * (value - low) / (high - low) if high > low else 65.0
