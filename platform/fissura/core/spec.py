"""Frozen, closed configuration objects, and the digest that names them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fissura.core.documents import read_json
from fissura.core.errors import SpecError
from fissura.core.rules import broken_rule, shown

MOST_PROBLEMS = 50
MOST_VALUES = 20_000
"""Of a file that is read as a spec, so that what is wrong with it is told within a second."""


class Spec(BaseModel):
    """Base of every configuration: immutable, and an unknown field is an error.

    A spec stands above the class it builds, in the same file. Only its plain form (`plain()`) crosses a
    process boundary or reaches a disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def plain(self) -> dict[str, Any]:
        """The spec as JSON types alone."""
        return self.model_dump(mode="json")

    @classmethod
    def load(cls, plain: dict[str, Any], *, source: str, remedy: str = "") -> Self:
        """The spec that `plain` describes; `source` names the file or option it came from in the errors, and
        `remedy`, where there is one, ends each.

        Types are strict: text is never read as a number.

        Raises:
            SpecError: with one problem a field.
        """
        try:
            return cls.model_validate_json(json.dumps(plain), strict=True)
        except ValidationError as error:
            end = f"; {remedy}" if remedy else ""
            raise SpecError(*(f"{source}: {problem}{end}" for problem in describe(error, spec=cls))) from None

    @classmethod
    def load_file(cls, path: Path, *, remedy: str = "") -> Self:
        """The spec in a JSON file of at most 16 MiB and 20,000 values; `remedy`, where there is one, is what
        to do if not.

        Raises:
            SpecError: the file is not JSON, or breaks a rule.
        """
        plain = read_json(path, remedy=remedy or "name another file", values=MOST_VALUES)
        return cls.load(plain, source=str(path), remedy=remedy)


def describe(
    error: ValidationError, *, spec: type[BaseModel] | None = None, names: Mapping[str, str] | None = None
) -> list[str]:
    """One line a problem, `MOST_PROBLEMS` of them: the dotted field, the rule, the value. The rules of `spec`
    are in a reader's words; `names` gives what a field is called where the reader wrote it."""
    lines = []
    for problem in error.errors(include_url=False)[:MOST_PROBLEMS]:
        path = ".".join(str(part) for part in problem["loc"]) or "(whole)"
        field = spec.model_fields.get(path) if spec else None
        name = (names or {}).get(path, path)
        lines.append(f"{broken_rule(name, problem, field)} (got {shown(problem['input'])})")
    return lines


def digest(plain: Any) -> str:
    """Sixteen hex digits that name `plain` (JSON types), whatever the order of its keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
