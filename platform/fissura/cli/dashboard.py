"""The command `dashboard`: a study in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from fissura.cli.console import Console, JsonOption


def dashboard(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder, finished or not.")],
    tensorboard_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="By default a free one.")
    ] = None,
    optuna_port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default a free one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a study's trials (optuna-dashboard) and curves (TensorBoard) on this machine, until Ctrl-C.

    Example: [bold]fissura dashboard studies/small_unet[/bold]
    """
    from fissura import api

    console = Console.of(as_json)

    def ready(urls: dict[str, str]) -> None:
        text = (
            f"trials (optuna-dashboard): {urls['optuna']}\ncurves (TensorBoard):      {urls['tensorboard']}"
        )
        console.result(urls, text)
        console.say("Ctrl-C ends both")

    api.dashboard(study, tensorboard_port=tensorboard_port, optuna_port=optuna_port, ready=ready)
