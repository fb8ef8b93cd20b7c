"""The program `fissura`: its commands, and how it reports errors."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from fissura.cli import (
    batch,
    board,
    classifiers,
    dashboard,
    data,
    doctor,
    drill,
    export,
    integrity,
    kinds,
    nodes,
    plan,
    runs,
    serve,
    studies,
)
from fissura.core.errors import FissuraError, Interrupted, UserError

CONTROL_C = 130  # what typer makes of a KeyboardInterrupt
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)

app = typer.Typer(
    name="fissura",
    help="Find, train, compare and serve the best crack model for your own images.\n\n"
    "Example: [bold]fissura demo[/bold]",
    epilog="Exit codes: 0 done, 2 a mistake in what was asked for, 1 a failure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(requested: bool) -> None:
    if requested:
        import fissura

        print(f"fissura {fissura.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


app.add_typer(data.app, name="data")
app.command("list")(kinds.list_family)
app.command("search")(studies.search)
app.command("plan")(plan.plan)
app.command("train")(runs.train)
app.command("evaluate")(runs.evaluate)
app.command("interference")(classifiers.interference)
app.command("score")(runs.score)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("rollout")(serve.rollout)
app.command("batch")(batch.batch)
app.add_typer(board.app, name="leaderboard")
app.command("report")(studies.report)
app.command("verify")(integrity.verify)
app.command("repair")(integrity.repair)
app.command("dashboard")(dashboard.dashboard)
app.command("doctor")(doctor.doctor)
app.command("drill")(drill.drill)
app.command("demo")(studies.demo)
app.command("spot-watch")(nodes.spot_watch)


def main() -> None:
    """The entry point of the console script."""
    # waiting threads that spin slow a shared machine down several times; PyTorch reads this at import
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (None: the process's own) and returns its exit code.

    Prints one line for each problem on standard error; writes the traceback of an unexpected error to a file.
    """
    lines: list[str] = []
    try:
        code: int = app(arguments, prog_name="fissura", standalone_mode=False) or 0
        if code == CONTROL_C:
            lines, code = (
                [
                    "stopped at once; finished epochs and trials are kept: run the same command again, and a"
                    " search with --resume"
                ],
                1,
            )
    except typer.TyperException as error:
        lines, code = _usage(error), error.exit_code
    except UserError as error:
        lines, code = [f"error: {problem}" for problem in str(error).splitlines()], 2
        if len(error.problems) > 1:
            lines.append(f"{len(error.problems)} errors; nothing was started.")
    except Interrupted as error:
        lines, code = [f"stopped: {error}"], 1
    except FissuraError as error:
        lines, code = [f"failed: {error}"], 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        if error.errno in DENIED:
            remedy = "mend the permissions or the mount, or name another folder"
            lines, code = [f"error: {name}{error.strerror}; {remedy}"], 2
        else:
            remedy = "free some space or mend the folder, then go on"
            lines, code = [f"failed: {name}{error.strerror or error}; {remedy}"], 1
    except Exception as error:
        lines, code = [_unexpected(error)], 1
    for line in lines:
        print(line, file=sys.stderr)
    return code


def _usage(error: typer.TyperException) -> list[str]:
    """The message for a command line that does not parse; empty if the help was shown instead."""
    from pydantic import ValidationError

    from fissura.core.rules import broken_clause

    message = " ".join(error.format_message().split()).removesuffix(".")
    if isinstance(cause := error.__cause__, ValidationError):  # in this project's words, not pydantic's
        problem = cause.errors(include_url=False)[0]
        name, colon, _ = message.partition(": ")
        message = f"{name}{colon}{broken_clause(problem)}"
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context else ""
    return [f"error: {message[:1].lower()}{message[1:]}{hint}"] if message else []


def _unexpected(error: Exception) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="fissura-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    reason = " ".join(str(error).split())[:200]
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return (
        f"failed: {type(error).__name__}{f': {reason}' if reason else ''}; the traceback is in {file.name}"
        f"{notes}"
    )
