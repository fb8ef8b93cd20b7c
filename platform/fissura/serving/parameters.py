"""The names that a route accepts: query parameters and body fields. Any other name is refused, since an
ignored option would give a wrong answer."""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request
from pydantic.fields import FieldInfo

from fissura.core.rules import broken_rule
from fissura.core.text import nearest
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
    part, *path = map(str, problem["loc"])
    known = {"query": parameters, "body": fields}.get(part, lambda _: {})(request)
    name = ".".join(path) or part
    if problem["type"] == "extra_forbidden":
        return unknown(name, known)
    return broken_rule(name, problem, known.get(name))


async def check_query(request: Request) -> None:
    """Checks that the route knows each query parameter, and that each occurs once.

    Raises:
        Refused: a parameter is unknown, or occurs twice.
    """
    known, names = parameters(request), [name for name, _ in request.query_params.multi_items()]
    problems = [unknown(name, known) for name in dict.fromkeys(names) if name not in known]
    problems += [f"`{name}` is there twice" for name in known if names.count(name) > 1]
    if problems:
        path = request.scope["path"][:200]
        accepted = f"the parameters {', '.join(known)}" if known else "no parameters"
        raise Refused(
            Problem(
                "invalid-value",
                f"the query of {path} has {accepted}",
                shown(problems),
                "mend the query; see /openapi.json",
            )
        )


def unknown(name: str, known: Iterable[str]) -> str:
    """The problem of a name that is not `known`, with the nearest known one."""
    return f"`{name[:MOST_NAME]}` is not known{nearest(name[:MOST_NAME], known)}"


def shown(problems: list[str]) -> str:
    """The first problems in one line."""
    more = len(problems) - MOST_SHOWN
    return "; ".join(problems[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
