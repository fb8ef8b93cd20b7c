"""The wording of a broken rule: the rule, the value, the remedy, in one line."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from fissura.core.text import nearest

_WANTED: Mapping[str, str] = {
    "list_type": "a list in brackets",
    "tuple_type": "a list in brackets",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def shown(value: Any) -> str:
    """A value as YAML would write it, on one line of at most 80 characters."""
    text = {"True": "true", "False": "false", "None": "null"}.get(repr(value), repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_of(value: Any, known: list[str]) -> str:
    """That `value` is none of `known`, and which of them looks like it."""
    near = nearest(value, known) if isinstance(value, str) else ""
    return f"{shown(value)} is none of {', '.join(known)}{near}"


def problems(error: ValidationError) -> list[Mapping[str, Any]]:
    """Pydantic's `errors()`, but for those that follow from another: a list emptied by broken items."""
    errors = error.errors(include_url=False)
    return [problem for problem in errors if problem["type"] != "too_short" or not problem["input"]]


def broken_rule(problem: Mapping[str, Any]) -> str:
    """One of pydantic's `errors()` as a clause, without the field's name."""
    kind, value = problem["type"], problem["input"]
    context = problem.get("ctx", {})
    if kind == "missing" and isinstance(problem["loc"][-1], int):
        return f"has too few values (got {shown(value)})"
    if kind == "missing":
        return "is missing; give it a value"
    if kind == "union_tag_not_found":
        return f"has no `kind`; give it one (got {shown(value)})"
    if kind in {"literal_error", "union_tag_invalid"}:
        known = re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))
        if known:
            return one_of(context.get("tag", value), known)
    if kind == "too_short":
        least = context["min_length"]
        return f"must have at least {least} value{'s' if least > 1 else ''} (got {shown(value)})"
    if kind == "too_long":
        return f"has too many values, {context['max_length']} at most (got {shown(value)})"
    if kind in _WANTED:
        quoted = "; write it without quotes" if isinstance(value, str) and _is_number(value) else ""
        return f"must be {_WANTED[kind]} (got {shown(value)}){quoted if 'number' in _WANTED[kind] else ''}"
    if kind == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ").replace("\n", " ")
    rule = str(problem["msg"]).replace("Input should be", "must be").replace("\n", " ")
    return f"{rule} (got {shown(value)})"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """That `key` is none of the `known` keys of its mapping, and which of them looks like it."""
    names = list(known)
    hint = nearest(key, names) or f"; there are {', '.join(names)}"
    return f"`{key}` is not a key here{hint}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
