"""The rule of a field, and what breaks it, in a reader's words."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
NUMBERS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def broken_rule(name: str, problem: Mapping[str, Any], field: FieldInfo | None) -> str:
    """The rule that `problem`, one of pydantic's, is about: "`threshold` is a number from 0 to 1". `name` is
    what the reader wrote; pydantic's own words stand where the rule of the `field` is not simply said."""
    if problem["type"] == "missing":
        return f"`{name:.200}` is needed"
    own = rule_of(field) if field is not None and problem["type"] != "extra_forbidden" else ""
    return f"`{name:.200}` is {own}" if own else f"`{name:.200}`: {problem['msg']:.500}"


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
    shown = {
        name: f"{int(value):,}" if isinstance(value, int | float) and value == int(value) else str(value)
        for name, value in bounds.items()
    }
    if {"ge", "le"} <= bounds.keys():
        return f" from {shown['ge']} to {shown['le']}"
    if {"min_length", "max_length"} <= bounds.keys():
        return f" of {shown['min_length']} to {shown['max_length']} characters"
    said = [f"{words} {shown[name]}" for name, words in NUMBERS.items() if name in shown]
    return f" {' and '.join(said)}" if said else ""
