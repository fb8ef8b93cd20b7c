"""Arguments of the verbs: a path as a string or a `Path`, one or several; data by name or as an object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import to_jsonable_python

from fissura.core.errors import SpecError
from fissura.core.spec import Spec

if TYPE_CHECKING:
    from fissura.data.datasets import Named
    from fissura.metrics import AnyProtocol

AnyPath: TypeAlias = str | Path
Words: TypeAlias = str | Sequence[str]
Paths: TypeAlias = AnyPath | Sequence[AnyPath]
Data: TypeAlias = "Named | Sequence[Named]"
"""One data set or several: the text `KIND:ROOT`, its object, or the `Path` of a folder, which is of the kind
`folder`, or `class_folder` if its images have classes."""


def path_of(path: AnyPath) -> Path:
    """The path, with the home folder for `~`."""
    return Path(path).expanduser()


def maybe_path(path: AnyPath | None) -> Path | None:
    """As `path_of`; None stays None."""
    return None if path is None else path_of(path)


def texts_of(paths: Paths) -> list[str]:
    """One path or several, as written."""
    return [str(paths)] if isinstance(paths, str | Path) else [str(path) for path in paths]


def paths_of(paths: Paths) -> list[Path]:
    """One path or several, with the home folder for `~`."""
    return [path_of(text) for text in texts_of(paths)]


def named_in(data: Data) -> "tuple[Named, ...]":
    """One data set or several."""
    return (data,) if isinstance(data, str | Path | Spec) else tuple(data)


def words_of(words: Words) -> tuple[str, ...]:
    """One word or several."""
    return (words,) if isinstance(words, str) else tuple(words)


def parse_protocols(texts: Words) -> "tuple[AnyProtocol, ...]":
    """The protocols of these names, one or several."""
    from fissura.metrics import parse_protocol

    return tuple(parse_protocol(text) for text in words_of(texts))


def fixed_of(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of the fixed values in JSON types: a `Path` as text, a NumPy number as a number.

    Raises:
        SpecError: a value has no JSON form.
    """
    plain, problems = {}, []
    for path, value in (values or {}).items():
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
