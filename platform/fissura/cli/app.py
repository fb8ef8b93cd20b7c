"""The program `fissura`: its commands, and what becomes of an error."""

import sys

import typer

from fissura.cli import board, data, runs, studies
from fissura.core.errors import FissuraError, UserError

app = typer.Typer(
    name="fissura",
    help="Find, train, compare and serve the best crack model for your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data.app, name="data")
app.command("search")(studies.search)
app.command("train")(runs.train)
app.command("evaluate")(runs.evaluate)
app.command("score")(runs.score)
app.add_typer(board.app, name="leaderboard")
app.command("report")(studies.report)
app.command("demo")(studies.demo)


def main() -> None:
    """Runs the command; an error becomes one line a problem and an exit code."""
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        if len(error.problems) > 1:
            print(f"{len(error.problems)} errors; nothing was started.", file=sys.stderr)
        sys.exit(2)
    except FissuraError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped at once; finished trials are kept, go on with --resume", file=sys.stderr)
        sys.exit(1)
