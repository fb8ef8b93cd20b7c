"""The names that a route knows: parameters of its query, fields of its body. Any other name is refused, since
an option that is passed over unseen is a wrong answer."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request
from pydantic.fields import FieldInfo

from fissura.core.rules import broken_rule
from fissura.core.spec import nearest
from fissura.serving.problems import Problem, Refused

MOST_SHOWN = 5
MOST_NAME = 60


def parameters(request: Request) -> dict[str, FieldInfo]:
    """The query parameters that the route of a request takes."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    known = sorted(dependant.query_params, key=lambda field: field.alias) if dependant else ()
    return {field.alias: field.field_info for field in known}


def fields(request: Request) -> dict[str, FieldInfo]:
    """The fields of the JSON document that the route of a request takes."""
    body = getattr(request.scope.get("route"), "body_field", None)
    return dict(getattr(body.field_info.annotation, "model_fields", {})) if body else {}


def rule(problem: Mapping[str, Any], request: Request) -> str:
    """The rule that a parameter or field breaks, under the name that the client wrote."""
    place, *path = map(str, problem["loc"])
    known = {"query": parameters, "body": fields}.get(place, lambda _: {})(request)
    name = ".".join(path) or place
    if problem["type"] == "extra_forbidden":
        return unknown(name, known)
    return broken_rule(name, problem, known.get(name))


async def check_query(request: Request) -> None:
    """Looks whether the route knows each parameter of the query, and each is there once.

    Raises:
        Refused: one is unknown, or named twice.
    """
    known, given = parameters(request), [name for name, _ in request.query_params.multi_items()]
    problems = [unknown(name, known) for name in dict.fromkeys(given) if name not in known]
    problems += [f"`{name}` is there twice" for name in known if given.count(name) > 1]
    if problems:
        path = request.scope["path"][:200]
        taken = f"the parameters {', '.join(known)}" if known else "no parameters"
        raise Refused(
            Problem(
                "invalid-value",
                f"the query of {path} has {taken}",
                shown(problems),
                "mend the query; see /openapi.json",
            )
        )


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is none of `known`, with the nearest one."""
    return f"`{name[:MOST_NAME]}` is not known{nearest(name[:MOST_NAME], known)}"


def shown(problems: list[str]) -> str:
    """The first problems in one line."""
    more = len(problems) - MOST_SHOWN
    return "; ".join(problems[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
