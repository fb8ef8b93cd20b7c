"""The wording of a search space's broken rules, beyond those of its fields."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from fissura.core.text import nearest


def problems(error: ValidationError) -> list[Mapping[str, Any]]:
    """Pydantic's `errors()`, but for those that follow from another: a list emptied by broken items."""
    errors = error.errors(include_url=False)
    return [problem for problem in errors if problem["type"] != "too_short" or not problem["input"]]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """That `key` is none of the `known` keys of its mapping, and which of them looks like it."""
    names = list(known)
    hint = nearest(key, names) or f"; there are {', '.join(names)}"
    return f"`{key}` is not a key here{hint}"
