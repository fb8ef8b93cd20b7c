"""What callers may give: a path as a string or a `Path`, one or several; data by its name or as an object."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fissura.core.spec import Spec

if TYPE_CHECKING:
    from fissura.data.datasets import Named

AnyPath: TypeAlias = str | Path
Paths: TypeAlias = AnyPath | Sequence[AnyPath]
Data: TypeAlias = "Named | Sequence[Named]"
"""One data set or several: the text `KIND:ROOT`, its object, or the `Path` of a folder of one's own, which is
of the kind `folder`, or `class_folder` where images have classes."""


def path_of(given: AnyPath) -> Path:
    """The path, with the home folder for `~`."""
    return Path(given).expanduser()


def maybe_path(given: AnyPath | None) -> Path | None:
    """The path, where there is one."""
    return None if given is None else path_of(given)


def texts_of(given: Paths) -> list[str]:
    """One path or several, as they were written."""
    return [str(given)] if isinstance(given, str | Path) else [str(path) for path in given]


def paths_of(given: Paths) -> list[Path]:
    """One path or several, with the home folder for `~`."""
    return [path_of(text) for text in texts_of(given)]


def named_in(given: Data) -> "tuple[Named, ...]":
    """One data set or several."""
    return (given,) if isinstance(given, str | Path | Spec) else tuple(given)
