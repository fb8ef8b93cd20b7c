"""Options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fissura.core.errors import SpecError

DataOption = Annotated[
    list[str], typer.Option("--data", metavar="KIND:ROOT", help="A data set, such as `cfd:/data/cfd`; may be repeated.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set a field of the recipe; may be repeated.")
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Folder of prepared images; by default in your user cache.")
]
ProtocolOption = Annotated[
    list[str] | None,
    typer.Option("--protocol", help="`pixel`, `tolerant:2`, `overlap`, `flexible:2`; may be repeated."),
]


def parse_sets(texts: Sequence[str] | None) -> dict[str, Any]:
    """The `PATH=VALUE` options as a mapping; values are read by the rules of the search spaces.

    Raises:
        SpecError: an option without `=`, or a value that YAML would misread.
    """
    from fissura.search.yaml import parse_value

    values = {}
    for text in texts or ():
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise SpecError(f"--set {text}: write PATH=VALUE, such as `model.weights=none`")
        values[path] = parse_value(value)
    return values
