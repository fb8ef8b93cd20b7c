"""The commands about rankings: `leaderboard show` and `leaderboard export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.core.errors import SpecError
from fissura.core.text import count

if TYPE_CHECKING:
    from fissura.reports.task_leaderboard import TaskLeaderboard

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
    console.result(board.plain(), lambda: board_text(board))


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

    if out.suffix.removeprefix(".") in {*get_args(Format), "tex"} and not out.is_dir():
        raise SpecError(f"--out {out}: is the folder that the files go to; name one, such as {out.parent}")
    console = Console.of(as_json)
    files = api.leaderboard(paths, say=console.say).write(out, formats=(kind,))
    console.result({"files": [str(file) for file in files]}, "\n".join(map(str, files)))


def board_text(board: "TaskLeaderboard") -> str:
    """The leaderboard as text tables, without the columns that only a file has room for."""
    from fissura.reports.differences import differing

    parts = []
    for ranked in board.tables:
        remark = f", {ranked.remark}" if ranked.remark else ""
        parts.append(f"{ranked.where}, {count(ranked.images, 'image')}{remark}")
        every, lines = [row.differs for row in ranked.rows], list(ranked.brief)
        if any(every):
            apart = ("; ".join(differing(differs, among=every)) or None for differs in every)
            lines = [{**line, "differs in": words} for line, words in zip(lines, apart, strict=True)]
        parts.append("\n".join([table(lines), *ranked.notes, ""]))
    return "\n".join(parts).rstrip()
