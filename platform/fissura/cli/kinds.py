"""The command `list`: the losses and the networks that recipes choose by a `kind`, and the recipes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.core.errors import SpecError, WeightsError
from fissura.core.paper import Paper
from fissura.core.text import nearest

if TYPE_CHECKING:
    from fissura.models.weights import ModelSpec


def list_family(
    family: Annotated[
        str, typer.Argument(metavar="losses|models|recipes", help="What to list.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """List the losses, the models or the recipes: paper and year of each, parameters and licence of weights.

    Example: [bold]fissura list models[/bold]
    """
    if family not in FAMILIES:
        raise SpecError(
            f"`{family}` is nothing that is listed{nearest(family, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    rows = list(FAMILIES[family]())
    Console.of(as_json).result(rows, lambda: _overview(rows))


def _losses() -> Iterator[dict[str, Any]]:
    from fissura.losses import AnyLoss

    for member in get_args(get_args(AnyLoss)[0]):
        settings = member().plain()
        yield {"kind": settings.pop("kind"), **_published(member.paper), "settings": settings}


def _models() -> Iterator[dict[str, Any]]:
    from fissura.models import AnyModel

    for member in get_args(get_args(AnyModel)[0]):
        choices = get_args(member.model_fields[member.variant].annotation) if member.variant else ()
        for spec in [member(**{member.variant: choice}) for choice in choices] or [member()]:
            settings = spec.plain()
            yield {
                "kind": settings.pop("kind"),
                "variant": member.variant and f"{member.variant}={settings[member.variant]}",
                **_published(member.paper),
                **_network(spec),
                "settings": settings,
            }


def _recipes() -> Iterator[dict[str, Any]]:
    from fissura.models.weights import ModelSpec
    from fissura.recipes import RECIPES, paper_of

    for name, recipe in RECIPES.items():
        made = recipe()
        network = next(spec for spec in made.weights_wanted if isinstance(spec, ModelSpec))
        yield {
            "recipe": name,
            "task": made.task,
            "network": network.plain()["kind"],
            **_published(paper_of(name)),
            **_network(network),
        }


FAMILIES = {"losses": _losses, "models": _models, "recipes": _recipes}


def _published(paper: Paper | None) -> dict[str, Any]:
    return {"paper": str(paper) if paper else None, "year": paper.year if paper else None}


def _network(spec: "ModelSpec") -> dict[str, Any]:
    """Its number of parameters, and the licence of its ImageNet weights: None where it has none."""
    import torch

    random = spec.model_copy(update={"weights": "none"})
    try:
        with torch.device("meta"):
            network = random.build()
    except RuntimeError:  # an encoder that reads a number off a tensor while it is built
        network = random.build()
    try:
        licence = spec.model_copy(update={"weights": "imagenet"}).hub_file().licence
    except WeightsError:
        licence = None
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "imagenet_weights": licence,
    }


def _overview(rows: list[dict[str, Any]]) -> str:
    return table([{name: _cell(name, value) for name, value in row.items()} for row in rows])


def _cell(name: str, value: Any) -> Any:
    if name == "settings":
        return ", ".join(value) or None
    return f"{value:,}" if name == "parameters" else value
