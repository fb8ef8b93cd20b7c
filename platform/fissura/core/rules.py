"""The rule of a field, and what breaks it, in a reader's words."""

import math
import re
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fissura.core.text import count, nearest

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
NUMBERS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
BOUNDS = {"greater_than_equal": "ge", "greater_than": "gt", "less_than_equal": "le", "less_than": "lt"}
WANTED: Mapping[str, str] = {
    "list_type": "a list in brackets",
    "tuple_type": "a list in brackets",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
SAY_MORE = frozenset({"finite_number", "value_error"})
"""Of pydantic's `errors()`, those on a value within its field's bounds."""
NO_MAPPING = frozenset({"dict_type", "model_type", "model_attributes_type", "union_tag_not_found"})
"""Of pydantic's `errors()`, those on a value that is no mapping, or none with a `kind`."""


def broken_rule(name: str, problem: Mapping[str, Any], field: FieldInfo | None) -> str:
    """The rule that `problem`, one of pydantic's `errors()`, is about: "`threshold` is a number from 0 to 1".
    `name` is what the reader wrote; where the rule of the `field` is not simply said, it is the one that is
    broken: "`threshold` must be at most 1"."""
    if problem["type"] == "missing":
        return f"`{name:.200}` is needed"
    if problem["type"] == "extra_forbidden":
        return f"`{name:.200}` is not a field"
    own = rule_of(field) if field is not None and problem["type"] not in SAY_MORE else ""
    return f"`{name:.200}` is {own}" if own else f"`{name:.200}`: {must(problem):.500}"


def broken_clause(problem: Mapping[str, Any]) -> str:
    """The rule, the value and the remedy of one of pydantic's `errors()`, without the field's name."""
    kind, value = problem["type"], problem["input"]
    if kind == "missing" and isinstance(problem["loc"][-1], int):
        return f"has too few values (got {shown(value)})"
    if kind == "missing":
        return "is missing; give it a value"
    if known := _known(problem):
        return one_of(problem.get("ctx", {}).get("tag", value), known)
    if kind == "value_error":
        return must(problem)
    quoted = kind in {"int_type", "float_type"} and isinstance(value, str) and _is_number(value)
    return f"{must(problem)} (got {shown(value)}){'; write it without quotes' if quoted else ''}"


def must(problem: Mapping[str, Any]) -> str:
    """The rule alone: "must be at most 1"."""
    kind, context = problem["type"], problem.get("ctx", {})
    if known := _known(problem):
        return f"must be one of {', '.join(known)}"
    if kind in BOUNDS:
        return f"must be {NUMBERS[BOUNDS[kind]]} {_number(context[BOUNDS[kind]])}"
    if kind in WANTED:
        return f"must be {WANTED[kind]}"
    if kind == "union_tag_not_found":
        return "has no `kind`; give it one"
    if kind == "too_short":
        return f"must have at least {count(context['min_length'], 'value')}"
    if kind == "too_long":
        return f"has too many values, {context['max_length']} at most"
    if kind in {"string_too_short", "string_too_long"}:
        bound = "at least {min_length}" if kind == "string_too_short" else "at most {max_length}"
        return f"must be text of {bound.format(**context)} characters"
    if kind == "string_pattern_mismatch":
        return f"must be text of the form {context['pattern']}"
    said = str(problem["msg"]).removeprefix("Value error, ").replace("\n", " ")
    return said.replace("Input should be", "must be").replace("String should", "text must")


def no_probability(threshold: Any) -> str:
    """The rule that a threshold breaks which is no probability; "" for one that is."""
    if not isinstance(threshold, str) and 0 <= threshold <= 1:
        return ""
    return f"a threshold is a probability from 0 to 1, such as 0.3, not {threshold!s:.80}"


def shown(value: Any) -> str:
    """A value as YAML would write it, on one line of at most 80 characters."""
    text = {"True": "true", "False": "false", "None": "null"}.get(repr(value), repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_of(value: Any, known: Iterable[str]) -> str:
    """That `value` is not among the `known`, and which of them looks like it."""
    names = list(known)
    near = nearest(value, names) if isinstance(value, str) else ""
    return f"{shown(value)} is not known{near}; known: {', '.join(f'`{name}`' for name in names)}"


def rule_of(field: FieldInfo) -> str:
    """What a value of a field is: "a whole number from 0 to 254", "one of json, mask"; "" where no few words
    say it."""
    optional = get_origin(field.annotation) in (Union, UnionType)
    every = get_args(field.annotation) if optional else [field.annotation]
    kinds = [kind for kind in every if kind is not NoneType]
    if len(kinds) != 1:
        return ""
    if get_origin(kinds[0]) is Literal:
        return f"one of {', '.join(map(str, get_args(kinds[0])))}"
    bounds = {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in (*NUMBERS, "min_length", "max_length", "pattern")
        if getattr(rule, name, None) is not None
    }
    if kinds[0] not in WORDS or "pattern" in bounds:
        return ""
    return f"{WORDS[kinds[0]]}{_range(bounds)}"


def _range(bounds: Mapping[str, Any]) -> str:
    shown = {name: _number(value) for name, value in bounds.items()}
    if {"ge", "le"} <= bounds.keys():
        return f" from {shown['ge']} to {shown['le']}"
    if {"min_length", "max_length"} <= bounds.keys():
        return f" of {shown['min_length']} to {shown['max_length']} characters"
    said = [f"{words} {shown[name]}" for name, words in NUMBERS.items() if name in shown]
    return f" {' and '.join(said)}" if said else ""


def _number(value: Any) -> str:
    whole = isinstance(value, int | float) and value == int(value)
    return f"{int(value):,}" if whole else str(value)


def _known(problem: Mapping[str, Any]) -> list[str]:
    """The values that a field or its `kind` may have, where it has another."""
    if problem["type"] not in {"literal_error", "union_tag_invalid"}:
        return []
    context = problem["ctx"]
    return re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
