"""The names that a route knows: parameters of its query, fields of its body. Any other name is refused, since
an option that is passed over unseen is a wrong answer."""

from collections.abc import Iterable

from fastapi import Request

from fissura.core.spec import nearest
from fissura.serving.problems import Problem, Refused

MOST_SHOWN = 5
MOST_NAME = 60


def parameters(request: Request) -> tuple[str, ...]:
    """The query parameters that the route of a request takes."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    return tuple(sorted(field.alias for field in dependant.query_params)) if dependant else ()


def fields(request: Request) -> tuple[str, ...]:
    """The fields of the JSON document that the route of a request takes."""
    body = getattr(request.scope.get("route"), "body_field", None)
    return tuple(getattr(body.field_info.annotation, "model_fields", ())) if body else ()


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
