"""The specs that a field admits: those of its union, each by its `kind`."""

import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ValidationError

from fissura.core.rules import shown
from fissura.core.spec import Spec


def members(annotation: Any) -> tuple[type[Spec], ...]:
    """The specs that an annotation admits, through Annotated, unions and None."""
    while typing.get_origin(annotation) is Annotated:  # whose metadata may have no hash
        annotation = typing.get_args(annotation)[0]
    return _union_members(annotation)


@functools.cache
def _union_members(annotation: Any) -> tuple[type[Spec], ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(annotation) for member in members(part))
    return (annotation,) if isinstance(annotation, type) and issubclass(annotation, Spec) else ()


@functools.cache
def annotations(member: type[Spec]) -> Mapping[str, Any]:
    return {name: field.annotation for name, field in member.model_fields.items()}


@functools.cache
def kinds(member: type[Spec]) -> tuple[str, ...]:
    field = member.model_fields.get("kind")
    return typing.get_args(field.annotation) if field else ()


def example_for(annotation: Any, value: Any) -> str:
    """A mapping that a field of specs takes where `value`, which is none, was given: "{kind: given, value:
    0.3}"; "" for a field of one spec, whose parts have paths of their own, and for any other field."""
    every = {kind: member for member in members(annotation) for kind in kinds(member)}
    if isinstance(value, str) and value in every:
        return f"{{kind: {value}}}"
    if not isinstance(value, str):
        for kind, member in every.items():
            (field, *more) = [name for name in member.model_fields if name != "kind"] or [""]
            if not field or more:
                continue
            for one in (value, member.model_fields[field].default):
                if _takes(member, {"kind": kind, field: one}):
                    return f"{{kind: {kind}, {field}: {shown(one)}}}"
    whole = (kind for kind, member in every.items() if _takes(member, {"kind": kind}))
    return next((f"{{kind: {kind}}}" for kind in whole), "")


def _takes(member: type[Spec], plain: Mapping[str, Any]) -> bool:
    try:
        member.model_validate(plain, strict=True)
    except ValidationError:
        return False
    return True
