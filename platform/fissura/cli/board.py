"""The commands about rankings: `leaderboard show` and `leaderboard export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fissura.cli.console import Console, JsonOption, table

app = typer.Typer(help="Rank evaluated runs, only like with like.", no_args_is_help=True)
Paths = Annotated[list[Path], typer.Argument(help="Studies, runs, or folders of them.")]


@app.command()
def show(paths: Paths, as_json: JsonOption = False) -> None:
    """Show the ranking of all evaluated runs below the paths.

    Example: [bold]fissura leaderboard show studies[/bold]
    """
    import fissura
    from fissura.results.columns import ranking

    console = Console.of(as_json)
    rows = ranking(fissura.leaderboard(paths, say=console.say))
    console.result(rows, lambda: table(rows))


@app.command()
def export(
    paths: Paths,
    kind: Annotated[Literal["parquet", "csv", "md", "html", "latex"], typer.Option("--format", help="The file's form.")],
    out: Annotated[Path, typer.Option(help="Folder of the file.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write the ranking of all evaluated runs below the paths to a file.

    Example: [bold]fissura leaderboard export studies --format latex --out paper[/bold]
    """
    import fissura
    from fissura.results.export import write_leaderboard

    console = Console.of(as_json)
    files = write_leaderboard(fissura.leaderboard(paths, say=console.say), out, formats=(kind,))
    console.result({"files": [str(file) for file in files]}, "\n".join(map(str, files)))
