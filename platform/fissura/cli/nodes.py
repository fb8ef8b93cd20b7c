"""The commands that run on a cluster's nodes: `spot-watch`."""

from pathlib import Path
from typing import Annotated

import typer

from fissura.cli.console import Console, JsonOption
from fissura.core.errors import SpecError


def spot_watch(
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="EC2's instance metadata, or what stands for it.")
    ] = "http://169.254.169.254",
    notice: Annotated[
        Path | None, typer.Option(help="A file whose being there is the notice, for other clouds.")
    ] = None,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="How often to look.")] = 5.0,
    address: Annotated[
        str, typer.Option("--address", envvar="RAY_ADDRESS", help="The cluster that this node is part of.")
    ] = "auto",
    node: Annotated[
        str | None, typer.Option(metavar="ID", help="Ray's id of the node; by default this one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Wait, on a spot machine, for the notice that it is taken away, and have its trials move to other nodes.

    Example: [bold]fissura spot-watch --notice /run/preempted[/bold]
    """
    console = Console.of(as_json)
    from fissura import api

    if every <= 0:
        raise SpecError(f"--every {every:g}: seconds between two looks; give a positive number")
    left = api.spot_watch(
        endpoint=endpoint, notice=notice, every_seconds=every, address=address, node=node, say=console.say
    )
    console.result({"seconds_left": left}, f"notice passed on; {left:.0f} s left")
