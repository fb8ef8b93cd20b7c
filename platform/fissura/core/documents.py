"""JSON files of ours, read with bounds; one that says of itself whether it is still what was written.

Whatever is wrong with a file (missing, cut off, of other bytes, nested without end) is one line that names
it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from fissura.core.errors import SpecError
from fissura.core.files import read_regular, write_json

LIMIT_BYTES = 16 * 2**20
LIMIT_DEPTH = 64
LIMIT_VALUES = 500_000
"""Which Python reads in half a second; a training of 20,000 epochs has fewer."""
SEAL = "sha256"
"""The field of a sealed document that holds the SHA-256 of all its others."""


def parse_json(text: str | bytes, *, values: int = LIMIT_VALUES) -> Any:
    """The value of JSON text that holds at most so many values, of lists and objects within one another at
    most `LIMIT_DEPTH` deep.

    Raises:
        ValueError: it is no JSON in UTF-8, nested deeper, or holds more; commas in texts count.
    """
    too_deep = ValueError(f"nested deeper than {LIMIT_DEPTH} levels")
    decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    # counted before anything is built
    if sum(map(decoded.count, ",[{")) > values:
        raise ValueError(f"holds more than {values} values")
    try:
        plain = json.loads(decoded)
    except RecursionError:
        raise too_deep from None
    level = [plain]
    for _ in range(LIMIT_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, list | dict)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    if level:
        raise too_deep
    return plain


def read_json(path: Path, *, remedy: str, values: int = LIMIT_VALUES) -> dict[str, Any]:
    """The object in a JSON file of at most 16 MiB and so many values; `remedy` ends the line that says what
    is wrong with it.

    Raises:
        SpecError: the file is missing or cannot be read, or holds no such object.
    """
    try:
        data = read_regular(path, most=LIMIT_BYTES)
        if len(data) > LIMIT_BYTES:
            raise SpecError(f"{path}: at most 16 MiB, is more; it is no file of this project")
        plain = parse_json(data, values=values)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None
    except ValueError as error:
        raise SpecError(f"{path}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(plain, dict):
        raise SpecError(f"{path}: not readable as JSON (holds no object); {remedy}")
    return plain


def write_sealed(path: Path, plain: dict[str, Any]) -> None:
    """Writes an object as JSON, whole or not at all, with its own digest in the field `SEAL`."""
    write_json(path, sealed(plain))


def read_sealed(path: Path, *, remedy: str) -> dict[str, Any]:
    """The object in a file of `write_sealed`; or in any other JSON file, as versions before it wrote them.

    Raises:
        SpecError: see `read_json`; or what the file holds is no longer what was written.
    """
    return unsealed(read_json(path, remedy=remedy), source=str(path), remedy=remedy)


def sealed(plain: dict[str, Any]) -> dict[str, Any]:
    """The object with its own digest in the field `SEAL`."""
    return {**plain, SEAL: _seal(plain)}


def unsealed(plain: dict[str, Any], *, source: str, remedy: str) -> dict[str, Any]:
    """The object without its seal, where it has one; `source` and `remedy` begin and end the error.

    Raises:
        SpecError: it is no longer what was sealed.
    """
    content = {name: value for name, value in plain.items() if name != SEAL}
    if plain.get(SEAL) not in (None, _seal(content)):
        raise SpecError(f"{source}: is damaged: it is not what was written (its SHA-256 differs); {remedy}")
    return content


def _seal(plain: dict[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
