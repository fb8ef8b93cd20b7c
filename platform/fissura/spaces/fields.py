"""Dotted paths into a recipe: find the field, change it, and suggest the nearest one if it is missing.

A path such as `phases.train.optimizer.lr` runs through specs by field, through tuples of specs by `name` or
index, and through unions on `kind` by the kind that is set.
"""

import copy
import itertools
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from fissura.core.errors import SpecError
from fissura.core.rules import NO_MAPPING, broken_clause, one_of
from fissura.core.spec import Spec
from fissura.core.text import nearest
from fissura.spaces.members import annotations, example_for, kinds, members
from fissura.spaces.wording import problems

Plain = dict[str, Any]
S = TypeVar("S", bound=Spec)
ABSENT: Any = object()
NEAR_LIMIT = 1_000  # paths that are compared with one that is not known


@dataclass(frozen=True)
class RecipeField:
    """A field of a recipe: its canonical path (names, not indices), its steps into the plain recipe, its
    type.

    `value` is the plain value there, or ABSENT where a required field has none yet.
    """

    path: str
    steps: tuple[str | int, ...]
    annotation: Any
    value: Any


@dataclass(frozen=True)
class Fault:
    """One broken rule: the path it is about ("" for the whole recipe), and the sentence for the reader."""

    path: str
    text: str


def resolve(plain: Plain, model_type: type[Spec], path: str) -> RecipeField:
    """The field of `path` in the plain form of a `model_type`, with the kinds that `plain` holds.

    Raises:
        SpecError: there is no such field; the nearest path is named.
    """
    field, whole = _follow(plain, model_type, path)
    if not whole:
        raise SpecError(_unknown(plain, model_type, path, field))
    return field


def find(plain: Plain, model_type: type[Spec], path: str) -> RecipeField | None:
    """`resolve` that looks for no near path: None where there is no such field."""
    field, whole = _follow(plain, model_type, path)
    return field if whole else None


def _follow(plain: Plain, model_type: type[Spec], path: str) -> tuple[RecipeField, bool]:
    """The field as far as `path` leads, and whether that is all of it."""
    field = RecipeField("", (), model_type, plain)
    for part in path.split("."):
        inner = _step(field, part)
        if inner is None:
            return field, False
        field = inner
    return field, True


def assign(plain: Plain, path: str, value: Any, *, model_type: type[Spec]) -> None:
    """Puts `value` at `path` of `plain`; a new `kind` brings that kind's defaults with it.

    `value` itself is left alone, whatever is assigned beneath it later.

    Raises:
        SpecError: there is no such field or no such kind; `plain` is as it was.
    """
    field = resolve(plain, model_type, path)
    parent: Any = plain
    for step in field.steps[:-1]:
        parent = parent[step]
    if not is_kind(path):
        parent[field.steps[-1]] = copy.deepcopy(value)
        return
    above, _, _ = path.rpartition(".")
    owner = resolve(plain, model_type, above) if above else RecipeField("", (), model_type, plain)
    current = owner.value.get("kind") if isinstance(owner.value, dict) else None
    if value == current:
        return
    by_kind = {kind: member for member in members(owner.annotation) for kind in kinds(member)}
    if not isinstance(value, str) or value not in by_kind:
        raise SpecError(f"`{path}`: {one_of(value, by_kind)}")
    fresh = by_kind[value].model_construct(kind=value).plain()  # type: ignore[call-arg]
    owner_parent: Any = plain
    for step in owner.steps[:-1]:
        owner_parent = owner_parent[step]
    owner_parent[owner.steps[-1]] = fresh


def override(recipe: S, values: Mapping[str, Any]) -> S:
    """The recipe with a value at each path, in any order: a `kind` is set before the fields beneath it.

    Types are strict: text is never a number; a whole number will do for a float.

    Raises:
        SpecError: with one line a problem, all at once.
    """
    changed, faults = attempt(recipe, values)
    if changed is None:
        raise SpecError(*(fault.text for fault in faults))
    return changed


def attempt(recipe: S, values: Mapping[str, Any]) -> tuple[S | None, list[Fault]]:
    """`override` that returns its faults: the recipe, or None and at least one fault."""
    plain, model_type = recipe.plain(), type(recipe)
    faults: list[Fault] = []
    for path in sorted(values, key=depth_then_kind):
        if any(fault.path in kinds_above(path) for fault in faults):
            continue
        try:
            assign(plain, path, to_jsonable_python(values[path]), model_type=model_type)
        except SpecError as error:
            faults.append(Fault(path, str(error)))
    try:
        changed = model_type.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        faults += [_fault(plain, model_type, problem) for problem in problems(error)]
    return (None, faults) if faults else (changed, [])


def depth_then_kind(path: str) -> tuple[int, bool]:
    """Sort key: outer fields before inner ones, and a `kind` before its neighbours."""
    return path.count("."), not is_kind(path)


def is_kind(path: str) -> bool:
    """Whether the path chooses a member of a union."""
    return path.rpartition(".")[2] == "kind"


def kinds_above(path: str) -> list[str]:
    """The `kind` paths on which the field at `path` depends, outermost first, itself not among them."""
    parts = path.split(".")
    kinds = [".".join([*parts[:length], "kind"]) for length in range(len(parts))]
    return [kind for kind in kinds if kind != path]


def known_paths(plain: Plain, model_type: type[Spec]) -> Iterator[str]:
    """Every path of `plain`, and of the other kinds one level deep."""
    queue = [RecipeField("", (), model_type, plain)]
    while queue:
        field = queue.pop()
        for part in _parts(field):
            inner = _step(field, part)
            if inner is not None:
                yield inner.path
                queue.append(inner)
        for member in members(field.annotation):
            yield from (f"{field.path}.{name}".lstrip(".") for name in member.model_fields)


def _step(field: RecipeField, part: str) -> RecipeField | None:
    key: str | int = part
    if isinstance(field.value, list):
        index = _index(field.value, part)
        if index is None:
            return None
        key, value, annotation = index, field.value[index], _item(field.annotation, index)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            part = value["name"]
    else:
        member = _member(field)
        if part == "kind" and any("kind" in annotations(one) for one in members(field.annotation)):
            annotation = str
        elif member is not None and part in annotations(member):
            annotation = annotations(member)[part]
        else:
            return None
        value = field.value.get(part, ABSENT) if isinstance(field.value, dict) else ABSENT
    path = f"{field.path}.{part}".lstrip(".")
    return RecipeField(path, (*field.steps, key), annotation, value)


def _parts(field: RecipeField) -> list[str]:
    if isinstance(field.value, list):
        return [str(index) for index in range(len(field.value))]
    member = _member(field)
    return list(member.model_fields) if member else []


def _index(items: list[Any], part: str) -> int | None:
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == part:
            return index
    return int(part) if part.isdecimal() and len(part) < 10 and int(part) < len(items) else None


def _member(field: RecipeField) -> type[Spec] | None:
    """The spec that the value of `field` is a form of."""
    if not isinstance(field.value, dict):
        return None
    admitted = members(field.annotation)
    if len(admitted) == 1:
        return admitted[0]
    return next((one for one in admitted if field.value.get("kind") in kinds(one)), None)


def _item(annotation: Any, index: int) -> Any:
    """The type of item `index` of a tuple or a list."""
    if typing.get_origin(annotation) is Annotated:
        return _item(typing.get_args(annotation)[0], index)
    for union in (typing.Union, types.UnionType):
        if typing.get_origin(annotation) is union:
            sequences = [
                one for one in typing.get_args(annotation) if typing.get_origin(one) in (tuple, list)
            ]
            return _item(sequences[0], index) if sequences else Any
    arguments = typing.get_args(annotation)
    if not arguments:
        return Any
    repeated = typing.get_origin(annotation) is list or arguments[-1] is Ellipsis
    return arguments[0] if repeated else arguments[index]


def _unknown(plain: Plain, model_type: type[Spec], path: str, reached: RecipeField) -> str:
    name = plain.get("name")
    owner = f"recipe `{name}`" if isinstance(name, str) else "the recipe"
    sentence = f"`{path if path.isprintable() else repr(path):.200}` is not a field of {owner}"
    part = path.split(".")[len(reached.steps)]
    others = [kind for one in members(reached.annotation) if part in one.model_fields for kind in kinds(one)]
    if others and isinstance(reached.value, dict):
        kind = f"`{reached.path}.kind`"
        return (
            f"{sentence} while {kind} is {reached.value.get('kind')}; set {kind} to {' or '.join(others)} too"
        )
    fields = sorted({inner.path for one in _parts(reached) if (inner := _step(reached, one))})
    if not part.isdecimal() and (hint := _hint(plain, model_type, path, reached, fields)):
        return f"{sentence}{hint}"
    if fields:
        return f"{sentence}; there are {', '.join(f'`{field}`' for field in fields)}"
    return f"{sentence}; `{reached.path}` has no fields here"


def _hint(
    plain: Plain, model_type: type[Spec], path: str, reached: RecipeField, fields: Sequence[str]
) -> str:
    """`; did you mean ...?`: a path whose part at the place of the mistake looks like it, and is one of
    `fields` or below; or one that ends alike; or nothing."""
    parts, depth = path.split("."), len(reached.steps)
    alike, elsewhere = list[str](), list[str]()
    for known in itertools.islice(known_paths(plain, model_type), NEAR_LIMIT):
        steps = known.split(".")
        field = ".".join(steps[: depth + 1])
        if field in fields and nearest(parts[depth], [steps[depth]]):
            alike.append(known)
        elif steps[-1] == parts[-1] and known != reached.path:
            elsewhere.append(known)
    return nearest(path, alike) or (f"; did you mean `{min(elsewhere, key=len)}`?" if elsewhere else "")


def _fault(plain: Plain, model_type: type[Spec], problem: Mapping[str, Any]) -> Fault:
    """Pydantic's location holds union tags that the plain recipe does not: they are left out."""
    value: Any = plain
    names: list[str] = []
    for part in problem["loc"]:
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            names.append(str(value["name"] if isinstance(value, dict) and "name" in value else part))
        elif isinstance(value, dict) and part in value:
            value = value[part]
            names.append(str(part))
    if problem["type"] == "missing":
        names.append(str(problem["loc"][-1]))
    path = ".".join(names)
    if problem["type"] == "extra_forbidden":
        return Fault(path, f"`{path}` is not a field")
    clause = broken_clause(problem)
    if not path:  # a rule of the whole recipe names the fields that it is about
        return Fault(path, clause)
    if problem["type"] not in NO_MAPPING or (field := find(plain, model_type, path)) is None:
        return Fault(path, f"`{path}`: {clause}")
    return Fault(path, f"`{path}`: {clause}{_such_as(field)}")


def _such_as(field: RecipeField) -> str:
    """What to write at a field that holds a spec, where something else stands."""
    if example := example_for(field.annotation, field.value):
        return f"; write {example}, say"
    parts = [f"`{field.path}.{name}`" for member in members(field.annotation) for name in annotations(member)]
    return f"; set its parts, such as {' or '.join(parts[:2])}" if parts else ""
