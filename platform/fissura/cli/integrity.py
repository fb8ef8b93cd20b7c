"""The commands about files: `verify` and `repair`."""

from pathlib import Path
from typing import Annotated

import typer

from fissura.cli.console import Console, JsonOption


def verify(
    path: Annotated[Path, typer.Argument(metavar="RUN|STUDY", help="The folder of a run or of a study.")],
    as_json: JsonOption = False,
) -> None:
    """Compare each file of a run, or of a study and its runs, with what was written; exit code 1 if one
    differs.

    Example: [bold]fissura verify studies/unet_backbones[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    verified = api.verify(path)
    plain = {
        "path": str(verified.path),
        "runs": verified.runs,
        "files": verified.files,
        "faults": list(verified.faults),
        "remarks": list(verified.remarks),
    }
    console.result(plain, "\n".join(verified.lines()))
    if verified.faults:
        raise typer.Exit(1)


def repair(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder.")],
    as_json: JsonOption = False,
) -> None:
    """Write a study's own files anew from its runs, where they are lost or damaged; these are kept aside.

    Example: [bold]fissura repair studies/unet_backbones[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    repaired = api.repair(study, say=console.say)
    plain = {
        "study": str(repaired.study),
        "written": [str(path) for path in repaired.written],
        "aside": [str(path) for path in repaired.aside],
        "trials": repaired.trials,
    }
    console.result(plain, "\n".join(repaired.lines()))
