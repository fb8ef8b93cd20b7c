"""Options that several commands share."""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from fissura.core.errors import SpecError

PROTOCOLS = "`pixel`, `tolerant:2`, `overlap` or `flexible:2`; the number is a distance in pixels"
DataOption = Annotated[
    list[str],
    typer.Option("--data", metavar="KIND:ROOT", help="A data set, such as `cfd:/data/cfd`; may be repeated."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field of the recipe; may be repeated."),
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Folder of prepared images; by default in your user cache.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_ADDRESS", help="A Ray cluster or `auto`; by default this machine."),
]
ProtocolOption = Annotated[
    list[str] | None,
    typer.Option("--protocol", help=f"{PROTOCOLS}; may be repeated. By default the recipe's own."),
]


def threshold_option(purpose: str) -> OptionInfo:
    """An option that takes a probability."""
    option: OptionInfo = typer.Option(parser=probability, metavar="PROBABILITY", help=purpose)
    return option


def probability(text: str | float) -> float:
    """The threshold that a command is given.

    Raises:
        ValueError: it is no number from 0 to 1.
    """
    from fissura.core.rules import no_probability

    try:
        value = float(text)
    except ValueError:
        value = nan
    if no_probability(value):
        raise ValueError(no_probability(str(text)))
    return value


def parse_sets(texts: Sequence[str] | None) -> dict[str, Any]:
    """The `PATH=VALUE` options as a mapping; values follow the rules of search spaces.

    Raises:
        SpecError: a line for each option without `=`, given twice, or with a value that YAML would misread.
    """
    from fissura.spaces.strict_yaml import parse_value

    values: dict[str, Any] = {}
    problems: list[str] = []
    for text in texts or ():
        path, equals, value = text.partition("=")
        if not equals or not path:
            problems.append(f"--set {text}: a setting is PATH=VALUE, such as `model.weights=none`")
        elif path in values:
            problems.append(f"--set {text}: `{path}` is set twice; set it once")
        else:
            values[path] = None
            try:
                values[path] = parse_value(value)
            except SpecError as error:
                problems += [f"--set {path}={problem}" for problem in error.problems]
    if problems:
        raise SpecError(*problems)
    return values
