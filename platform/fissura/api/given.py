"""What callers may give: a path as a string or a `Path`, one or several; data by its name or as an object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import to_jsonable_python

from fissura.core.errors import SpecError
from fissura.core.spec import Spec

if TYPE_CHECKING:
    from fissura.data.datasets import Named

AnyPath: TypeAlias = str | Path
Words: TypeAlias = str | Sequence[str]
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


def words_of(given: Words) -> tuple[str, ...]:
    """One word or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def fixed_of(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of the fixed values as JSON has them: a `Path` as text, a number of NumPy as a number.

    Raises:
        SpecError: one of them is no such value.
    """
    plain, problems = {}, []
    for path, value in (given or {}).items():
        try:
            plain[path] = to_jsonable_python(value, fallback=_number)
        except ValueError as error:
            problems.append(f"`{path}`: {error}")
    if problems:
        raise SpecError(*problems)
    return plain


def _number(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    kind = type(value).__name__
    raise ValueError(f"must be text, a number, true, false, null, a list or a mapping (got a {kind})")
