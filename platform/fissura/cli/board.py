"""The commands about rankings: `leaderboard show` and `leaderboard export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fissura.cli.classifiers import class_text, plain_rows
from fissura.cli.console import Console, JsonOption, table

if TYPE_CHECKING:
    from fissura.reports.leaderboard import Leaderboard
    from fissura.reports.standings import Standing

app = typer.Typer(
    help="Rank evaluated runs, only like with like."
    "\n\nExample: [bold]fissura leaderboard show studies[/bold]",
    no_args_is_help=True,
)
Format = Literal["parquet", "csv", "md", "html", "latex"]
Paths = Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Studies, runs, or folders of them.")]


@app.command()
def show(paths: Paths, as_json: JsonOption = False) -> None:
    """Show the ranking of all evaluated runs below the paths.

    Example: [bold]fissura leaderboard show studies[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    board = api.leaderboard(paths, say=console.say)
    classes = board.classes
    plain = rows(board) if not classes else [*rows(board), *plain_rows(classes)]
    console.result(plain, lambda: "\n\n".join(filter(None, (brief(board), class_text(classes)))))


@app.command()
def export(
    paths: Paths,
    kind: Annotated[Format, typer.Option("--format", help="The file's form.")],
    out: Annotated[Path, typer.Option(help="Folder that the file goes to.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write the ranking of all evaluated runs below the paths to a file, one for each task.

    Example: [bold]fissura leaderboard export studies --format latex --out paper[/bold]
    """
    from fissura import api
    from fissura.reports.classification_export import write_classification
    from fissura.reports.export import write_leaderboard

    console = Console.of(as_json)
    board = api.leaderboard(paths, say=console.say)
    classes = board.classes
    files = [] if classes and not board.tables else write_leaderboard(board, out, formats=(kind,))
    if classes:
        name = "leaderboard-classifiers" if files else "leaderboard"
        files += write_classification(classes, out, name=name, formats=(kind,), title="Classifiers")
    console.result({"files": [str(file) for file in files]}, "\n".join(map(str, files)))


def rows(board: "Leaderboard | None") -> list[dict[str, Any]]:
    """Every number of the leaderboard, as JSON types."""
    from fissura.reports.columns import flat

    return [] if board is None else flat(board.tables).to_pylist()


def brief(board: "Leaderboard") -> str:
    """The leaderboard as text tables, without the columns that only a file has room for."""
    parts = []
    for ranking in board.tables:
        condition, remark = ranking.condition, f", {ranking.remark}" if ranking.remark else ""
        parts.append(
            f"{ranking.data} {condition.split}, {condition.protocol}, {ranking.images} images{remark}"
        )
        lines = [
            {
                "rank": standing.rank,
                "recipe": standing.recipe,
                **({} if ranking.no_crack else _f1(standing)),
                **(_false_alarms(standing) if ranking.crack_free else {}),
                "threshold": standing.thresholds[0],
                "seeds": len(standing.seeds),
                "parameters": standing.parameters,
                "seconds": round(standing.seconds),
                "run": ", ".join(standing.run_ids),
            }
            for standing in ranking.standings
        ]
        notes = [
            f"note: {standing.recipe}: {note}" for standing in ranking.standings for note in standing.notes
        ]
        parts.append("\n".join([table(lines), *notes, ""]))
    return "\n".join(parts).rstrip()


def _f1(standing: "Standing") -> dict[str, Any]:
    f1 = standing.scores.get("f1")
    return {
        "F1": f1 and f1.value,
        "95 %": f1 and f1.span("{:.4f}".format, joint=".."),
        **{name: _value(standing, name) for name in ("precision", "recall")},
    }


def _false_alarms(standing: "Standing") -> dict[str, Any]:
    return {
        "false alarms/image": _value(standing, "false_alarms_per_image"),
        "false alarms/Mpx": _value(standing, "false_alarms_per_megapixel"),
    }


def _value(standing: "Standing", name: str) -> float | None:
    """A score of a standing; None where it is undefined."""
    score = standing.scores.get(name)
    return None if score is None else score.value
