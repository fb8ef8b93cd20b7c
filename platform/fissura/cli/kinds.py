"""The command `list`: what recipes and search spaces can choose by a `kind`."""

from typing import Annotated, Any, get_args

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.core.errors import SpecError
from fissura.core.spec import nearest


def list_family(
    family: Annotated[str, typer.Argument(metavar="losses|models", help="What to list.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """List the kinds of losses or of models, each with its paper and its year.

    Example: [bold]fissura list losses[/bold]
    """
    if family not in FAMILIES:
        raise SpecError(
            f"`{family}` is nothing that is listed{nearest(family, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    rows = FAMILIES[family]()
    Console.of(as_json).result(rows, lambda: _overview(rows))


def _losses() -> list[dict[str, Any]]:
    from fissura.losses import AnyLoss

    return [_row(member) for member in get_args(get_args(AnyLoss)[0])]


def _models() -> list[dict[str, Any]]:
    from fissura.models import AnyModel

    return [_row(member) for member in get_args(get_args(AnyModel)[0])]


FAMILIES = {"losses": _losses, "models": _models}


def _row(member: Any) -> dict[str, Any]:
    settings: dict[str, Any] = member().plain()
    return {
        "kind": settings.pop("kind"),
        "paper": str(member.paper) if member.paper else None,
        "year": member.paper.year if member.paper else None,
        "settings": settings,
    }


def _overview(rows: list[dict[str, Any]]) -> str:
    return table([{**row, "settings": ", ".join(row["settings"]) or None} for row in rows])
