"""Writing a leaderboard: Parquet and CSV for programs; Markdown, LaTeX and HTML for people."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pyarrow.parquet as pq

from fissura.core.files import replacing, write_text
from fissura.results import html, text
from fissura.results.columns import EXPLANATION, TITLES, Column, caption, columns, flat, heading
from fissura.results.gallery import Budget, gallery
from fissura.results.leaderboard import Leaderboard, Standing, Table
from fissura.results.pictures import Load

Format = Literal["parquet", "csv", "md", "html", "latex"]
SUFFIXES: dict[Format, str] = {"parquet": "parquet", "csv": "csv", "md": "md", "html": "html", "latex": "tex"}
EMPTY = "No run has been scored yet."


def write_leaderboard(
    board: Leaderboard,
    directory: Path,
    *,
    formats: Sequence[Format] = get_args(Format),
    title: str = "Leaderboard",
    load: Load | None = None,
) -> list[Path]:
    """Writes `directory/leaderboard.<suffix>` in each of `formats`, whole or not at all; gives the paths.

    With `load` the HTML page shows pictures.
    """
    paths = []
    for kind in formats:
        path = directory / f"leaderboard.{SUFFIXES[kind]}"
        if kind == "parquet":
            with replacing(path) as scratch:
                pq.write_table(flat(board), scratch, compression="zstd")
        else:
            write_text(path, as_text(board, kind=kind, title=title, load=load))
        paths.append(path)
    return paths


def as_text(
    board: Leaderboard,
    *,
    kind: Literal["csv", "md", "html", "latex"],
    title: str = "Leaderboard",
    load: Load | None = None,
) -> str:
    """The leaderboard as the text of one file."""
    if kind == "csv":
        return _csv(board)
    if kind == "html":
        return html.page(title, *_header(board, title), *sections(board, load=load))
    if not board.tables:
        return EMPTY + "\n"
    if kind == "latex":
        return "\n".join(_latex(table) for table in board.tables)
    return "\n".join([*(_markdown(table) for table in board.tables), EXPLANATION + "\n"])


def _csv(board: Leaderboard) -> str:
    # a manifest is a page of text: it is in the Parquet and the HTML file
    table = flat(board).drop_columns(["manifests"])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow(json.dumps(value) if isinstance(value, list) else value for value in row.values())
    return buffer.getvalue()


def _markdown(table: Table) -> str:
    chosen = columns(table)
    lines = [
        f"### {markdown_escaped(heading(table))}",
        "",
        markdown_escaped(caption(table)),
        "",
        markdown_row([column.title for column in chosen]),
        markdown_row(["---:" if column.numeric else "---" for column in chosen]),
        *(markdown_row([_markdown_cell(column, s) for column in chosen]) for s in table.standings),
        "",
    ]
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(column: Column, standing: Standing) -> str:
    entry = column.entry(standing)
    return markdown_escaped(f"{entry.text} [{entry.detail}]" if entry.detail else entry.text)


def markdown_escaped(plain: str) -> str:
    for mark in "\\|*_`<[":
        plain = plain.replace(mark, f"\\{mark}")
    return plain.replace("\n", ", ")


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
        "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
        ">": r"\textgreater{}", "–": "--", "—": "---", "\n": ", ",
    }
)  # fmt: skip


def _latex(table: Table) -> str:
    chosen = [column for column in columns(table) if column.title != "Runs"]
    shape = "".join("r" if column.numeric else "l" for column in chosen)
    rows = [[_latex_cell(column, standing) for column in chosen] for standing in table.standings]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{f'{heading(table)}. {caption(table)}. {EXPLANATION}'.translate(LATEX)}}}",
        rf"  \begin{{tabular}}{{{shape}}}",
        r"    \toprule",
        f"    {' & '.join(column.title for column in chosen)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _latex_cell(column: Column, standing: Standing) -> str:
    entry = column.entry(standing)
    # A row that starts with "[" would be read as an argument of the line break before it.
    small = f" {{\\scriptsize ({entry.detail.translate(LATEX)})}}" if entry.detail else ""
    return entry.text.translate(LATEX) + small


def _header(board: Leaderboard, title: str) -> list[html.Html]:
    lead = html.element("p.lead", found(board.tables[0]) if board.tables else EMPTY)
    tiles = html.element("div.tiles", *(_tile(table) for table in board.tables))
    return [html.element("header", html.element("h1", title), lead, tiles)]


def _tile(table: Table) -> html.Html:
    best = table.standings[0]
    score = best.scores[table.ranked_by]
    figure = f"{TITLES[table.ranked_by]} {text.share(score.value)}"
    return html.tile(
        heading(table), figure, f"{text.share(score.low)}–{text.share(score.high)}, {best.recipe}"
    )


def found(table: Table) -> str:
    """The table's result in a sentence."""
    best, by = table.standings[0], table.ranked_by
    if best.rank is None:
        return f"On {table.data} no configuration scored every image."
    score = best.scores[by]
    equals = sum(1 for standing in table.standings[1:] if standing.group == best.group)
    ties = {0: "", 1: " One other configuration does not differ from it significantly."}
    tied = ties.get(equals, f" {equals} other configurations do not differ from it significantly.")
    interval = f"95 % interval {score.low:.3f} to {score.high:.3f}"
    return (
        f"On the {table.images} {table.condition.split} images of {table.data}, "
        f"under the protocol {table.condition.protocol}, the best of "
        f"{text.count(len(table.standings), 'configuration')} ({best.recipe}) has "
        f"{TITLES[by]} {score.value:.3f} ({interval}).{tied}"
    )


def sections(board: Leaderboard, *, load: Load | None) -> list[html.Html]:
    """A section of HTML for each table, with pictures where `load` gives the images."""
    budget, shown, parts = Budget(), set(), []
    for table in board.tables:
        parts.append(html.element("h2", heading(table)))
        parts.append(html.element("p.muted", caption(table)))
        parts.append(_html_table(table))
        # The predictions are the same under every protocol: one gallery does for all of a split.
        pictured = (table.condition.dataset, table.condition.data_digest, table.condition.split)
        if load and pictured not in shown:
            shown.add(pictured)
            parts.append(gallery(table, load=load, budget=budget))
    return [*parts, html.element("p.muted", EXPLANATION), *_manifests(board)] if parts else []


def _manifests(board: Leaderboard) -> list[html.Html]:
    """What produced each run, folded away."""
    manifests = {
        one.run_id: one for table in board.tables for row in table.standings for one in row.manifests
    }
    return [
        html.element(
            "details",
            html.element("summary", f"Manifest of run {run_id}"),
            html.element("pre", json.dumps(manifest.plain(), indent=2, sort_keys=True)),
        )
        for run_id, manifest in manifests.items()
    ]


def _html_table(table: Table) -> html.Html:
    chosen = columns(table)
    rows = [[_html_cell(column, standing) for column in chosen] for standing in table.standings]
    place = next(i for i, column in enumerate(chosen) if column.title == TITLES[table.ranked_by]) + 1
    spread = [standing.scores[table.ranked_by] for standing in table.standings]
    low, high = min(score.low for score in spread), max(score.high for score in spread)
    for row, score in zip(rows, spread, strict=True):
        ends = [across(value, low, high) for value in (score.low, score.value, score.high)]
        row.insert(place, html.Cell(draw_whisker(*ends), score.value))
    titles = [column.title for column in chosen]
    titles.insert(place, "95 % interval")
    return html.table(titles, rows, numeric=[column.title for column in chosen if column.numeric])


def _html_cell(column: Column, standing: Standing) -> html.Cell:
    entry = column.entry(standing)
    detail = html.element("span.detail", entry.detail) if entry.detail else None
    lines = entry.text.split("\n")
    shown = [html.element("code", line) for line in lines] if column.title == "Differs in" else [entry.text]
    return html.Cell(html.join(*shown, detail), entry.value if entry.value is not None else entry.text)


def across(value: float, low: float, high: float) -> float:
    return 5 + 120 * (value - low) / (high - low) if high > low else 65.0


def draw_whisker(low: float, value: float, high: float) -> html.Html:
    """A score and its interval as a dot and a line, on the scale that the table's rows share."""

    def line(kind: str, *ends: float) -> html.Html:
        x1, y1, x2, y2 = (f"{end:.1f}" for end in ends)
        return html.element(f"line{kind}", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2})

    dot = html.element("circle", attributes={"cx": f"{value:.1f}", "cy": "10", "r": "3.5"})
    attributes = {"viewBox": "0 0 130 20", "aria-hidden": "true"}
    marks = [line(".base", 0, 10, 130, 10), line("", low, 10, high, 10), line("", low, 6, low, 14)]
    return html.element("svg.whisker", *marks, line("", high, 6, high, 14), dot, attributes=attributes)
