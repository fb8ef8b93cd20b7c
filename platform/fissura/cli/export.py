"""The command `export`: a run as a folder that works without fissura."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import threshold_option
from fissura.core import text


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make; it must not exist.")],
    to: Annotated[Literal["onnx"], typer.Option(help="The format of the network.")] = "onnx",
    quantise: Annotated[
        Literal["none", "int8"], typer.Option(help="`int8` adds a copy of the network with int8 weights.")
    ] = "none",
    threshold: Annotated[
        float | None,
        threshold_option("Of a segmentation; by default the one that its evaluation chose."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export a run: ONNX, and scripts that need onnxruntime, NumPy and Pillow.

    Example: [bold]fissura export studies/runs/1a2b3c4d5e6f --to onnx --out bundle --quantise int8[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    console.say("exporting, comparing with PyTorch, and measuring; this can take some minutes")
    with console.working():
        bundle = api.export(run, to=to, out=out, quantise=quantise, threshold=threshold)
    plain = {"bundle": str(bundle.path), **bundle.card}
    console.result(plain, lambda: export_text(plain))


def export_text(plain: dict[str, Any]) -> str:
    """Where the bundle is, how it was checked, and the size and speed of its parts."""
    rows = [
        {
            "part": part["name"],
            "bytes": part["bytes"],
            "ms": part["milliseconds"],
            "MACs": part["macs"],
        }
        for part in plain["table"]
    ]
    known = "trained_on" in plain
    lines = [
        *([f"trained on {text.data(', '.join(plain['trained_on']), plain['data_digest'])}"] if known else []),
        f"largest difference to PyTorch: {plain['check']['difference']:.2g}",
        table(rows),
        f"one image of {plain['image'][0]} x {plain['image'][1]}, one thread of {plain['device']}",
    ]
    if plain["quantisation"] is not None:
        moved = plain["quantisation"]
        lines.append(
            f"int8 moves the output by {moved['relative']:.2%} (root mean square), at most by"
            f" {moved['largest']:.3g}, on random images"
        )
    return "\n".join([*lines, f"bundle: {plain['bundle']}", f"there: {plain['usage']}"])
