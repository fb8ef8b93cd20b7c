"""The command `interference`, and how the scores of classifiers are printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import CacheOption, DataOption

if TYPE_CHECKING:
    from fissura.reports.classification import ClassRow
    from fissura.reports.statistics import Interval


def interference(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders of classification runs.")],
    data: DataOption,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge classifiers under shadow, stain and low contrast; say what changed from the first to each other.

    Example: [bold]fissura interference RUN RUN --data class_folder:/data/walls[/bold]
    """
    from fissura import api
    from fissura.reports.interference_export import as_text

    console = Console.of(as_json)
    with console.progress("classifying images") as on_image:
        tables = api.interference(runs, data=data, cache=cache, say=console.say, on_image=on_image)
    plain = [
        {
            "dataset": test_table.test_set.dataset,
            "data_name": test_table.data_name,
            "data_digest": test_table.test_set.data_digest,
            "images": test_table.images,
            "models": {
                row.model: {name: vars(score) for name, score in row.scores.items()}
                for row in test_table.rows
            },
        }
        for test_table in tables
    ]
    console.result(plain, lambda: as_text(tables, kind="md").rstrip())


def plain_rows(rows: "Sequence[ClassRow]") -> list[dict[str, Any]]:
    """The scores of classifiers, as JSON types."""
    return [
        {
            "dataset": row.test_set.dataset,
            "data_name": row.data_name,
            "data_digest": row.test_set.data_digest,
            "split": row.test_set.split,
            "condition": row.condition,
            "rank": row.rank,
            "recipe": row.recipe,
            "images": row.images,
            "scores": _plain(row.scores),
            **({"remark": row.remark} if row.remark else {}),
            "classifier_bytes": row.classifier_bytes,
            "classifier_microseconds": row.classifier_microseconds,
            "parameters": row.parameters,
            "runs": list(row.run_ids),
        }
        for row in rows
    ]


def _plain(scores: "Mapping[str, Interval]") -> dict[str, dict[str, float | None]]:
    return {name: vars(score) for name, score in scores.items()}


def class_text(rows: "Sequence[ClassRow]") -> str:
    """The scores of classifiers as text tables, one for each test set and condition."""
    from fissura.reports.classification import tables_of

    parts = []
    for ranking in tables_of(rows):
        first, remark = ranking[0], f", {ranking[0].remark}" if ranking[0].remark else ""
        parts.append(f"{first.data} {first.test_set.split}, {first.condition}, {first.images} images{remark}")
        parts.append(table([_line(row) for row in ranking]))
        parts.append("")
    return "\n".join(parts).rstrip()


def _line(row: "ClassRow") -> dict[str, Any]:
    f1 = row.scores.get("f1")
    scored = {"F1": f1.value, "95 %": f1.span("{:.4f}".format, joint="..")} if f1 else {}
    shown = {name: row.scores.get(name) for name in ("accuracy", "false_alarm_rate", "missed_alarm_rate")}
    return {
        "rank": row.rank,
        "recipe": row.recipe,
        **scored,
        **{name.removesuffix("_rate"): score.value if score else None for name, score in shown.items()},
        "bytes": row.classifier_bytes,
        "µs": row.classifier_microseconds,
        "run": ", ".join(row.run_ids),
    }
