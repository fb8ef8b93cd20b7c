"""The options of a data set in its text: `KIND:ROOT?suffix=_mask&threshold=127`.

They are the fields of its spec; `mask_suffix` and `mask_threshold` are named by their last words.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin
from urllib.parse import quote, unquote

from pydantic import ValidationError

from fissura.core.errors import SpecError
from fissura.core.spec import Spec, describe
from fissura.core.text import nearest

SpecT = TypeVar("SpecT", bound=Spec)

_OWN_PLACE = frozenset({"kind", "root", "source", "mm_per_pixel", "limits_mm"})  # in the text
_SHORTENED = "mask_"
LONGEST_TEXT = 4096  # characters, as of a path
LONGEST_NAME = 255  # bytes of a file's or a folder's


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """The root and the options of `ROOT?KEY=VALUE&...`. An existing path is a root."""
    root, mark, query = text.rpartition("?")
    if not mark or "=" not in query or exists(Path(text).expanduser()):
        return text, {}
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return root, {unquote(key): unquote(value) for key, _, value in pairs}


def exists(path: Path) -> bool:
    """Whether `path` exists; a text that is too long for a path does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def with_options(
    spec: type[SpecT], options: Mapping[str, str], *, text: str, given: Mapping[str, Any]
) -> SpecT:
    """The data set of the kind `spec` with these options; `given` are its root and other fields that are not
    options.

    Raises:
        SpecError: a folder's name is too long; or a line for each option that is unknown or whose value
            breaks a rule.
    """
    root = given.get("root")
    if isinstance(root, Path) and any(len(os.fsencode(part)) > LONGEST_NAME for part in root.parts):
        raise SpecError(f"{text!r:.80}: a folder's name has {LONGEST_NAME} bytes at most; mend the path")
    fields = dict(_fields(spec))
    unknown = [option for option in options if option not in fields]
    if unknown:
        raise SpecError(
            *(
                f"`{text}`: `{option}` is no option of this kind of data{nearest(option, fields)}; known:"
                f" {', '.join(fields)}"
                for option in unknown
            )
        )
    values: dict[str, Any] = {}
    for option, value in options.items():
        field = fields[option]
        listed = get_origin(spec.model_fields[field].annotation) is tuple
        values[field] = value.split(",") if listed else value
    try:
        return spec.model_validate({**given, **values})
    except ValidationError as error:
        named = {field: option for option, field in fields.items()}
        raise SpecError(
            *(f"`{text}`: {problem}" for problem in describe(error, spec=spec, names=named))
        ) from None


def options_of(spec: type[Spec]) -> dict[str, str]:
    """The options of a kind of data, each with its default as text; "" for None."""
    defaults = {option: spec.model_fields[field].default for option, field in _fields(spec)}
    return {option: "" if default is None else str(default) for option, default in defaults.items()}


def options_text(data: Spec, *, lead: str = "") -> str:
    """`?KEY=VALUE&...` for the fields that differ from their default, with `lead` before each key; or ""."""
    pairs = []
    for option, field in _fields(type(data)):
        value = getattr(data, field)
        if value != type(data).model_fields[field].default:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            pairs.append(f"{lead}{option}={quote(shown, safe='/:,')}")
    return f"?{'&'.join(pairs)}" if pairs else ""


def _fields(spec: type[Spec]) -> Iterator[tuple[str, str]]:
    for field in spec.model_fields:
        if field not in _OWN_PLACE:
            yield field.removeprefix(_SHORTENED), field
