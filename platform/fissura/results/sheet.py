"""A table of entries as text: Markdown, LaTeX and HTML for people, CSV for programs."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fissura.results import html
from fissura.results.columns import Entry
from fissura.results.export import LATEX, across, draw_whisker, markdown_escaped, markdown_row
from fissura.results.statistics import Difference, Interval


@dataclass(frozen=True)
class Sheet:
    """A table as people read it; `whisker` is the column whose interval the page draws, with its values."""

    heading: str
    caption: str
    titles: Sequence[str]
    numeric: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    whisker: tuple[str, Sequence[Interval]] | None = None


def score_entry(
    score: Interval | Difference | None, *, signed: Literal["signed", "plain"] = "plain"
) -> Entry:
    """A score or a change with its interval in small print."""
    if score is None:
        return Entry("—")
    form = "+.3f" if signed == "signed" else ".3f"
    low, high = f"{score.low:{form}}", f"{score.high:{form}}"
    return Entry(
        f"{score.value:{form}}", f"{low} to {high}" if signed == "signed" else f"{low}–{high}", score.value
    )


def markdown(sheet: Sheet) -> str:
    """The sheet under a heading of the third level."""

    def cell(entry: Entry) -> str:
        return markdown_escaped(f"{entry.text} [{entry.detail}]" if entry.detail else entry.text)

    lines = [
        f"### {markdown_escaped(sheet.heading)}",
        "",
        markdown_escaped(sheet.caption),
        "",
        markdown_row([markdown_escaped(title) for title in sheet.titles]),
        markdown_row(["---:" if title in sheet.numeric else "---" for title in sheet.titles]),
        *(markdown_row([cell(entry) for entry in row]) for row in sheet.rows),
        "",
    ]
    return "\n".join(lines)


def latex(sheet: Sheet, *, explanation: str) -> str:
    """The sheet as a table for booktabs, without its column of runs."""
    kept = [index for index, title in enumerate(sheet.titles) if title != "Runs"]

    def cell(entry: Entry) -> str:
        # A row that starts with "[" would be read as an argument of the line break before it.
        small = f" {{\\scriptsize ({entry.detail.translate(LATEX)})}}" if entry.detail else ""
        return entry.text.translate(LATEX) + small

    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{f'{sheet.heading}. {sheet.caption}. {explanation}'.translate(LATEX)}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if sheet.titles[i] in sheet.numeric else 'l' for i in kept)}}}",
        r"    \toprule",
        f"    {' & '.join(sheet.titles[i].translate(LATEX) for i in kept)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(cell(row[i]) for i in kept)} \\\\" for row in sheet.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def html_table(sheet: Sheet) -> html.Html:
    """The sheet as a sortable table in the pages' style."""
    titles = list(sheet.titles)
    rows = [[_html_cell(*pair) for pair in zip(titles, row, strict=True)] for row in sheet.rows]
    if sheet.whisker is not None and rows:
        column, spread = sheet.whisker
        place = titles.index(column) + 1
        low, high = min(score.low for score in spread), max(score.high for score in spread)
        for row, score in zip(rows, spread, strict=True):
            places = [across(value, low, high) for value in (score.low, score.value, score.high)]
            row.insert(place, html.Cell(draw_whisker(*places), score.value))
        titles.insert(place, "95 % interval")
    return html.table(titles, rows, numeric=sheet.numeric)


def _html_cell(title: str, entry: Entry) -> html.Cell:
    detail = html.element("span.detail", entry.detail) if entry.detail else None
    lines = entry.text.split("\n")
    shown = [html.element("code", line) for line in lines] if title == "Differs in" else [entry.text]
    return html.Cell(html.join(*shown, detail), entry.value if entry.value is not None else entry.text)


def ends(name: str, score: Interval | Difference | None) -> dict[str, float | None]:
    """`name`, `name_low` and `name_high`, and `name_p` of a difference, as columns of a program's table."""
    if score is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    known: dict[str, float | None] = {
        name: score.value,
        f"{name}_low": score.low,
        f"{name}_high": score.high,
    }
    return known | {f"{name}_p": score.p} if isinstance(score, Difference) else known


def as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """One line each, under the names of all; None is empty."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
