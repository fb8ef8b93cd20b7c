"""In which parameters configurations differ, and how that reads."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from fissura.core import text


def differences(recipes: Sequence[Mapping[str, JsonValue]]) -> list[dict[str, JsonValue]]:
    """For each recipe, the dotted parameters not alike in all recipes of its name; never the seed."""
    flat = [flatten(recipe) for recipe in recipes]
    by_name: dict[Any, list[dict[str, JsonValue]]] = defaultdict(list)
    for one in flat:
        by_name[one.get("name")].append(one)
    varied = {name: _varied(group) for name, group in by_name.items()}
    return [{key: one[key] for key in varied[one.get("name")] if key in one} for one in flat]


def _varied(group: list[dict[str, JsonValue]]) -> list[str]:
    keys = dict.fromkeys(key for recipe in group for key in recipe if key != "seed")
    absent = object()
    return [
        key for key in keys if any(recipe.get(key, absent) != group[0].get(key, absent) for recipe in group)
    ]


def flatten(plain: Any, prefix: str = "") -> dict[str, JsonValue]:
    """Nested JSON as dotted keys; a list's item goes by its `name` where it has one, else by its place."""
    if isinstance(plain, Mapping) and plain:
        items = [(str(key), value) for key, value in plain.items()]
    elif isinstance(plain, list) and any(isinstance(item, Mapping | list) for item in plain):
        named = [
            str(item.get("name", i)) if isinstance(item, Mapping) else str(i) for i, item in enumerate(plain)
        ]
        items = list(zip(named, plain, strict=True))
    else:
        return {prefix: plain}
    flat: dict[str, JsonValue] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def differing(differs: Mapping[str, JsonValue], *, among: Iterable[Mapping[str, JsonValue]]) -> list[str]:
    """`parameter = value` for each parameter in which a configuration differs from its neighbours `among`
    which it is shown; of the path, what tells it apart from the others of the table."""
    short = text.shortened(key for other in among for key in other)
    return [f"{short[key]} = {plain(value)}" for key, value in differs.items()]


def plain(value: Any) -> str:
    """A parameter's value in one line."""
    if isinstance(value, float):
        return text.number(value)
    return value if isinstance(value, str) else json.dumps(value)
