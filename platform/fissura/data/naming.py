"""What data sets are called: the name of each, and what tells several of one list apart."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import Field

PLACE = ("root", "name")
"""The options of a data set that say nothing of what it holds."""

DataName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}+$")]
"""A name that a user gives: text without control characters."""


def name_of(plain: Mapping[str, Any]) -> str:
    """The name of the data set of this plain spec: the user's, or the last part of its root; of one that is
    cut from another, that one's; the kind where there is no root."""
    if plain.get("name"):
        return str(plain["name"])
    if plain.get("source"):
        return name_of(plain["source"])
    last = PurePath(str(plain.get("root") or "")).name or str(plain.get("kind"))
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in last)


def folder_name(folder: Path) -> str:
    """What a folder of files is called by itself: "bridge/masks", since half of them are called `masks`."""
    return name_of({"name": "/".join(name_of({"root": part}) for part in folder.resolve().parts[-2:])})


def told_apart(names: Iterable[str]) -> list[str]:
    """The names in order; one that stands there already gets a number: "bridge", "bridge-2"."""
    taken: list[str] = []
    for name in names:
        number, own = 1, name
        while own in taken:
            number, own = number + 1, f"{name}-{number + 1}"
        taken.append(own)
    return taken
