"""Names of data sets, and unique names for a list of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import Field

PLACE = ("root", "name")
"""The options of a data set that do not change its content."""

DataName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}+$")]
"""A name that a user gives: text without control characters."""


def name_of(plain: Mapping[str, Any]) -> str:
    """The name of the data set of this plain spec: the user's, or the last part of its root; the source's if
    it is cut from one; the kind if there is no root."""
    if plain.get("name"):
        return str(plain["name"])
    if plain.get("source"):
        return name_of(plain["source"])
    last = PurePath(str(plain.get("root") or "")).name or str(plain.get("kind"))
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in last)


def folder_name(folder: Path) -> str:
    """The name of a folder of files: "bridge/masks", as many folders are called `masks`."""
    _, *parts = folder.resolve().parts
    return "/".join(name_of({"root": part}) for part in parts[-2:]) or "/"


def unique_names(names: Iterable[str]) -> list[str]:
    """The names in order; a repeated one gets a number: "bridge", "bridge-2"."""
    taken: list[str] = []
    for name in names:
        number, own = 1, name
        while own in taken:
            number, own = number + 1, f"{name}-{number + 1}"
        taken.append(own)
    return taken
