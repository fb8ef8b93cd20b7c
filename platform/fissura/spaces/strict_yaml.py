"""Strict YAML: a file reads one way only, and each value keeps its line.

PyYAML alone reads `1e-5` as text, `off` as false, `010` as 8 and `1:30` as 90, and the last of two equal
keys wins.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fissura.core.errors import SpaceError, SpecError
from fissura.core.text import nearest

# so that PyYAML, which reads 30,000 values a second, refuses whatever comes within one
SIZE_LIMIT_BYTES = 100_000
DEPTH_LIMIT = 32
VALUE_LIMIT = 5_000
ITEM_LIMIT = 256  # of one list or mapping
KEY_LIMIT = 200
PROBLEM_LIMIT = 50

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_SCIENTIFIC = re.compile(r"([-+]?)([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)[eE]([-+]?)([0-9]+)")
_ZERO_LED = re.compile(r"[-+]?0[0-9oO][0-9_]*")
_CONSTANTS: Mapping[str, Any] = {"null": None, "~": None, "true": True, "false": False}
_TRUTHS: Mapping[str, str] = {"yes": "true", "on": "true", "no": "false", "off": "false"}

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlDocument:
    """A YAML mapping: its values, and the line (from 1) of each key and each item by its location."""

    source: str
    text: str
    plain: dict[str, Any]
    lines: Mapping[Location, int]

    def line(self, location: Location) -> int:
        """The line of `location`, or of the innermost part of it in the file; parts not there are skipped."""
        found: Location = ()
        for part in location:
            if (*found, part) in self.lines:
                found = (*found, part)
        return self.lines[found]


def read(path: Path) -> YamlDocument:
    """The mapping in a YAML file of at most 100 kB.

    Raises:
        SpaceError: with one line a problem, `FILE:LINE: what is wrong and what to write`.
    """
    try:
        if path.is_dir():
            raise SpaceError(f"{path}: is a folder; name a YAML file in it")
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        folder = path.parent
        siblings = [str(near) for near in folder.glob("*.y*ml")] if folder.is_dir() else []
        raise SpaceError(f"{path}: there is no such file{nearest(str(path), siblings)}") from None
    except (OSError, ValueError) as error:
        raise SpaceError(f"{str(path)!r:.200}: cannot be read ({error})") from None
    if len(content) > SIZE_LIMIT_BYTES:
        raise SpaceError(f"{path}: is larger than 100 kB; a search space is a few kB, is this another file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SpaceError(f"{path}:{line}: is not UTF-8; save the file as UTF-8") from None
    return parse(text, source=str(path))


def parse(text: str, *, source: str) -> YamlDocument:
    """The mapping in YAML text; `source` names it in the errors.

    Raises:
        SpaceError: with one line a problem, `SOURCE:LINE: what is wrong and what to write`.
    """
    reader = _Reader()
    plain = reader.read(text)
    if not reader.problems and not isinstance(plain, dict):
        reader.problems.append((1, "the file must be a mapping such as `recipe: unet_backbones`"))
    if reader.problems:
        kept = sorted(reader.problems)[:PROBLEM_LIMIT]
        raise SpaceError(*(f"{source}:{line}: {problem}" for line, problem in kept))
    return YamlDocument(source, text, plain, reader.lines)


def parse_value(text: str) -> Any:
    """The value in `--set path=value`, by the rules of the files: `0.1`, `adam`, `null`, `[64, 64]`.

    Raises:
        SpecError: the text is no value.
    """
    reader = _Reader()
    plain = reader.read(text)
    if reader.problems:
        kept = sorted(reader.problems)[:PROBLEM_LIMIT]
        raise SpecError(*(f"{text!r:.80}: {problem}" for _, problem in kept))
    return plain


def write_value(value: Any) -> str:
    """The text that `parse_value` reads as this plain value: JSON, but for a number such as 1.0e-05."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{write_value(key)}: {write_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=not value.isprintable())
    text = json.dumps(value)
    mantissa, exponent, power = text.partition("e")
    scientific = isinstance(value, float) and exponent
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{power}" if scientific else text


class _TooMuch(yaml.MarkedYAMLError):
    """A text nests too deep, or holds too many values."""


class _Loader(yaml.SafeLoader):
    """Composes nodes, noting aliases and tags, and stops where they nest too deep or are too many."""

    def __init__(self, text: str, problems: list[tuple[int, str]]) -> None:
        super().__init__(text)
        self._problems = problems
        self._nesting = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._problems.append((line, f"the alias `*{event.anchor}` is not read; write the value out"))
            return yaml.ScalarNode("alias", "", event.start_mark, style='"')  # type: ignore[arg-type]
        if event.tag is not None:
            self._problems.append((line, f"the tag {event.tag!r:.80} is not read; remove it"))
        self._values += 1
        if self._nesting >= DEPTH_LIMIT or self._values > VALUE_LIMIT:
            deep = self._nesting >= DEPTH_LIMIT
            rule = f"nested deeper than {DEPTH_LIMIT} levels" if deep else f"more than {VALUE_LIMIT} values"
            raise _TooMuch(problem=f"is {rule}; shorten it", problem_mark=event.start_mark)
        self._nesting += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._nesting -= 1
        return node


class _Reader:
    """Turns one YAML text into plain values, lines and problems."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []
        self.lines: dict[Location, int] = {(): 1}

    def read(self, text: str) -> Any:
        if len(text) > SIZE_LIMIT_BYTES:
            self.problems.append(
                (1, f"is {len(text)} characters long, {SIZE_LIMIT_BYTES} at most; shorten it")
            )
            return None
        try:
            loader = _Loader(text, self.problems)
            node = loader.get_single_node()
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            self.problems.append((line, f"the character U+{error.character:04X} is not allowed; remove it"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.problems.append((mark.line + 1 if mark else 1, _syntax(error)))
        except (ValueError, OverflowError, yaml.YAMLError) as error:
            # PyYAML lets int() and chr() fail on absurd directives and escapes
            self.problems.append((1, f"is not YAML ({error!s:.80}); check escapes and directives"))
        else:
            if node is not None:
                return self._value(node, ())
            self.problems.append((1, "there is no value; write one, or null"))
        return None

    def _value(self, node: yaml.Node, location: Location) -> Any:
        if isinstance(node, yaml.CollectionNode) and len(node.value) > ITEM_LIMIT:
            rule = f"a list or a mapping has {ITEM_LIMIT} items at most, this one {len(node.value)}"
            self.problems.append((node.start_mark.line + 1, f"{rule}; a range is {{int: [low, high]}}"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[*location, index] = item.start_mark.line + 1
                items.append(self._value(item, (*location, index)))
            return items
        return self._scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                if not any(line == at for at, _ in self.problems[-PROBLEM_LIMIT:]):
                    self.problems.append((line, "a key must be text; quote it"))
            elif len(key) > KEY_LIMIT:
                self.problems.append((line, f"a key has {KEY_LIMIT} characters at most, this one {len(key)}"))
            elif key in plain:
                first = self.lines[*location, key]
                self.problems.append(
                    (line, f"{_shown(key)} is given twice, first in line {first}; remove one")
                )
            else:
                self.lines[*location, key] = line
                plain[key] = None
                plain[key] = self._value(value_node, (*location, key))
        return plain

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        try:
            text.encode()
            return text if node.style is not None else plain_scalar(text, resolved=node.tag)
        except UnicodeEncodeError:
            problem = "half of a surrogate pair is no character; write the character itself"
        except ValueError as error:
            problem = str(error)
        self.problems.append((node.start_mark.line + 1, problem))
        return None


def plain_scalar(text: str, *, resolved: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar; `resolved` is the tag by which YAML 1.1 would read it.

    Raises:
        ValueError: YAML 1.1 and most readers disagree about it; the message says what to write.
    """
    shown = _shown(text)
    if not text:
        raise ValueError("a value is missing here; write one, or null")
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]  # type: ignore[no-any-return]
    if truth := _TRUTHS.get(text.lower()):
        raise ValueError(f"{shown} would be read as {truth}; write {truth}, or quote it to mean the word")
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
            raise ValueError(f"{shown} does not fit 64 bits; write a smaller number, or quote it")
        return int(text)
    if _FLOAT.fullmatch(text):
        if not math.isfinite(float(text)):
            raise ValueError(f"{shown} does not fit a float; write a smaller number, or quote it")
        return float(text)
    if match := _SCIENTIFIC.fullmatch(text):
        sign, mantissa, power_sign, power = match.groups()
        mantissa = f"{mantissa}{'' if '.' in mantissa else '.0'}"
        better = f"{sign}{mantissa}e{power_sign or '+'}{power}"
        raise ValueError(f"{shown} would be read as text, not as a number; write {better[:80]}")
    kind = resolved.rpartition(":")[2]
    if kind == "float" and text.lower().lstrip("+-") in {".inf", ".nan"}:
        raise ValueError(f"{shown} is not finite; write a finite number")
    if kind in {"int", "float"} or _ZERO_LED.fullmatch(text):
        raise ValueError(f"{shown} is not read in base 10; write decimal digits, or quote it to mean text")
    if kind == "timestamp":
        raise ValueError(f"{shown} would be read as a date; quote it to mean text")
    if kind in {"merge", "value"}:
        raise ValueError(f"{shown} is not read; write the values out")
    return text


def _shown(text: str) -> str:
    return f"`{text:.80}`" if text.isprintable() else f"{text!r:.80}"


def _syntax(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _TooMuch):
        return str(error.problem)
    if "'\\t'" in (error.problem or ""):
        return "a tab cannot indent; use spaces"
    parts = [part.replace("\n", " ") for part in (error.context, error.problem) if part]
    return f"is not YAML: {', '.join(parts):.160}; check indentation, brackets, colons and quotes near here"
