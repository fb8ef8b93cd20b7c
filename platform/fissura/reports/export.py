"""The leaderboard of segmentations: Parquet and CSV for programs; Markdown, LaTeX and HTML for people."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from fissura.core import text
from fissura.reports import html
from fissura.reports.columns import EXPLANATION, TITLES, flat, heading, sheet
from fissura.reports.gallery import Budget, gallery
from fissura.reports.leaderboard import Leaderboard
from fissura.reports.pictures import Load
from fissura.reports.ranked_sheet import figure
from fissura.reports.run_sections import RunSections
from fissura.reports.sheet import ALL_FORMATS, Document, Format, document_text, section, write_document
from fissura.reports.standings import Table

EMPTY = "No run has been scored yet."


def write_leaderboard(
    board: Leaderboard,
    directory: Path,
    *,
    name: str = "leaderboard",
    formats: Sequence[Format] = ALL_FORMATS,
    title: str = "Leaderboard",
    load: Load | None = None,
) -> list[Path]:
    """Writes `directory/name.<suffix>` in each of `formats`, whole or not at all; gives the paths.

    With `load` the HTML page shows pictures.
    """
    return write_document(_document(board, title, load), directory, name=name, formats=formats)


def as_text(
    board: Leaderboard,
    *,
    kind: Literal["csv", "md", "html", "latex"],
    title: str = "Leaderboard",
    load: Load | None = None,
) -> str:
    """The leaderboard as the text of one file."""
    return document_text(_document(board, title, load), kind=kind)


def _document(board: Leaderboard, title: str, load: Load | None) -> Document:
    return Document(
        title=title,
        sheets=[sheet(table) for table in board.tables],
        explanation=EXPLANATION,
        empty=EMPTY,
        flat=flat(board.tables),
        page=[_header(board, title), *sections(board, load=load)],
        unprinted=("manifests",),  # a manifest is a page of text: it is in the Parquet and the HTML file
    )


def _header(board: Leaderboard, title: str) -> Markup:
    lead = found(board.tables[0]) if board.tables else EMPTY
    return html.part("header", title, lead, [tile(table) for table in board.tables])


def tile(table: Table) -> Markup:
    """The table's best score in large print."""
    best = table.standings[0]
    by, score = table.ranked_by, best.scores[table.ranked_by]
    interval = score.span(partial(figure, by))
    return html.part(
        "tile", heading(table), f"{TITLES[by]} {figure(by, score.value)}", f"{interval}, {best.recipe}"
    )


def found(table: Table) -> str:
    """The table's result in a sentence."""
    best, by = table.standings[0], table.ranked_by
    if best.rank is None:
        return f"On {table.data} no configuration scored every image."
    score = best.scores[by]
    equals = sum(1 for standing in table.standings if standing.group == best.group and standing.rank != 1)
    ties = {0: "", 1: " One other configuration does not differ from it significantly."}
    tied = ties.get(equals, f" {equals} other configurations do not differ from it significantly.")
    names = [standing.recipe for standing in table.standings if standing.rank == 1]
    configurations = text.count(len(table.standings), "configuration")
    interval = score.sentence(partial(figure, by))
    remark = f" There is {table.remark}." if table.no_crack else ""
    return (
        f"On the {text.count(table.images, f'{table.condition.split} image')} of {table.data}, "
        f"under the protocol {table.condition.protocol}, {text.leaders(names, of=configurations)} "
        f"{TITLES[by]} {figure(by, score.value)} ({interval}).{tied}{remark}"
    )


def held_out(board: Leaderboard, *, load: Load | None) -> RunSections:
    """What a study's report says of held-out images, with pictures where `load` gives the images."""
    return RunSections(
        held_out=sections(board, load=load),
        found=found(board.tables[0]) if board.tables else "",
        tiles=[tile(table) for table in board.tables],
    )


def sections(board: Leaderboard, *, load: Load | None) -> list[Markup]:
    """A section of HTML for each table, with pictures where `load` gives the images."""
    budget, drawn, parts = Budget(), set(), []
    for table in board.tables:
        parts.append(section(sheet(table)))
        # The predictions are the same under every protocol: one gallery does for all of a split.
        data_key = (table.condition.dataset, table.condition.data_digest, table.condition.split)
        if load and data_key not in drawn:
            drawn.add(data_key)
            parts.append(gallery(table, load=load, budget=budget))
    return [*parts, html.part("muted", EXPLANATION), *_manifests(board)] if parts else []


def _manifests(board: Leaderboard) -> list[Markup]:
    """What produced each run, folded away."""
    manifests = {
        manifest.run_id: manifest
        for table in board.tables
        for row in table.standings
        for manifest in row.manifests
    }
    return [
        html.part(
            "folded",
            f"Manifest of run {run_id}",
            html.part("pre", json.dumps(manifest.plain(), indent=2, sort_keys=True)),
        )
        for run_id, manifest in manifests.items()
    ]
