"""Dotted paths find a field through specs, unions on `kind` and tuples; what they change is checked."""

import itertools
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from fissura.core.errors import SpecError
from fissura.core.spec import Spec
from fissura.spaces.fields import assign, known_paths, override, resolve


class UNet(Spec):
    kind: Literal["unet"] = "unet"
    width: int = Field(16, ge=1, le=64)
    depth: int = Field(3, ge=1, le=6)


class Backbone(Spec):
    kind: Literal["backbone"] = "backbone"
    encoder: Literal["vgg16", "resnet34"] = "vgg16"
    depth: int = Field(4, ge=1, le=6)


class Sized(Spec):
    kind: Literal["sized"] = "sized"
    size: int = Field(ge=1)


class Plateau(Spec):
    kind: Literal["plateau"] = "plateau"
    patience: int = 3


class Cosine(Spec):
    kind: Literal["cosine"] = "cosine"


class Loss(Spec):
    dice: float = Field(1.0, ge=0)
    bce: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _weighs_something(self) -> "Loss":
        if self.dice == 0 and self.bce == 0:
            raise ValueError("dice and bce are both 0; make one positive")
        return self


class Phase(Spec):
    name: str
    loss: Loss = Loss()
    schedule: Annotated[Plateau | Cosine, Field(discriminator="kind")] | None = None
    stop: int | None = None


class Recipe(Spec):
    name: str = "toy"
    model: Annotated[UNet | Backbone | Sized, Field(discriminator="kind")] = UNet()
    phases: tuple[Phase, ...] = (Phase(name="warm"), Phase(name="fine"))
    size: tuple[int, int] = (64, 32)
    flip: bool = False


RECIPE = Recipe()


@pytest.mark.parametrize(
    ("path", "canonical", "value"),
    [
        ("name", "name", "toy"),
        ("model.kind", "model.kind", "unet"),
        ("model.width", "model.width", 16),
        ("phases.fine.loss.dice", "phases.fine.loss.dice", 1.0),
        ("phases.1.loss.dice", "phases.fine.loss.dice", 1.0),
        ("phases.warm.schedule", "phases.warm.schedule", None),
        ("size.1", "size.1", 32),
        ("model", "model", {"kind": "unet", "width": 16, "depth": 3}),
    ],
)
def test_finds_a_field(path: str, canonical: str, value: object) -> None:
    place = resolve(RECIPE.plain(), Recipe, path)
    assert (place.path, place.value) == (canonical, value)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("model.widht", "did you mean `model.width`?"),
        ("modle.width", "did you mean `model.width`?"),
        ("phases.fine.los.dice", "did you mean `phases.fine.loss.dice`?"),
        ("phases.fien.loss.dice", "did you mean `phases.fine.loss.dice`?"),
        ("phases.fine.flip", "did you mean `flip`?"),
        ("model.encodr", "there are `model.depth`, `model.kind`, `model.width`"),
        ("model.encoder", " while `model.kind` is unet; set `model.kind` to backbone too"),
        ("model.zzzzzzzzzzzzzzzzzz", "there are `model.depth`, `model.kind`, `model.width`"),
        ("phases.7", "there are `phases.fine`, `phases.warm`"),
        ("name.length", "`name` has no fields here"),
        ("size.2", "there are `size.0`, `size.1`"),
        ("", "there are "),
        ("model..width", "did you mean `model.width`?"),
    ],
)
def test_an_unknown_field_brings_the_nearest_one(path: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(RECIPE.plain(), Recipe, path)
    assert str(caught.value).startswith(f"`{path}` is not a field of recipe `toy`")
    assert hint in str(caught.value)


def test_known_paths_are_those_that_resolve_and_those_of_other_kinds() -> None:
    paths = set(known_paths(RECIPE.plain(), Recipe))
    assert {"model.width", "phases.fine.loss.bce", "size.0", "phases.warm.schedule.patience"} <= paths
    assert {"model.encoder", "model.size"} <= paths, "fields of the kinds that are not set"


def test_a_new_kind_brings_its_own_defaults() -> None:
    plain = RECIPE.plain()
    assign(plain, "model.kind", "backbone", model_type=Recipe)
    assert plain["model"] == {"kind": "backbone", "encoder": "vgg16", "depth": 4}


def test_the_kind_that_is_set_already_changes_nothing() -> None:
    wide = override(RECIPE, {"model.width": 64})
    assert override(wide, {"model.kind": "unet"}) == wide


def test_a_kind_is_set_before_the_fields_beneath_it_in_any_order() -> None:
    values = {"model.encoder": "resnet34", "model.kind": "backbone", "model.depth": 2}
    expected = Backbone(encoder="resnet34", depth=2)
    for order in itertools.permutations(values):
        assert override(RECIPE, {path: values[path] for path in order}).model == expected


def test_a_kind_may_need_a_field_that_comes_with_it() -> None:
    assert override(RECIPE, {"model.kind": "sized", "model.size": 3}).model == Sized(size=3)
    with pytest.raises(SpecError) as caught:
        override(RECIPE, {"model.kind": "sized"})
    assert caught.value.problems == ("`model.size`: is missing; give it a value",)


def test_a_kind_takes_the_place_of_null() -> None:
    changed = override(RECIPE, {"phases.warm.schedule.kind": "plateau", "phases.warm.schedule.patience": 5})
    assert changed.phases[0].schedule == Plateau(patience=5)
    assert override(changed, {"phases.warm.schedule": None}).phases[0].schedule is None


def test_a_whole_spec_can_be_set() -> None:
    expected = override(RECIPE, {"model": {"kind": "backbone"}, "model.depth": 1}).model
    assert expected == override(RECIPE, {"model": Backbone(depth=1)}).model == Backbone(depth=1)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("model.width", "16", "`model.width`: must be a whole number (got '16'); write it without quotes"),
        ("model.width", 1.5, "`model.width`: must be a whole number (got 1.5)"),
        ("model.width", True, "`model.width`: must be a whole number (got true)"),
        ("model.width", 65, "`model.width`: must be at most 64 (got 65)"),
        ("model.width", None, "`model.width`: must be a whole number (got null)"),
        ("flip", 1, "`flip`: must be true or false (got 1)"),
        ("phases.fine.loss.dice", "x", "`phases.fine.loss.dice`: must be a number (got 'x')"),
        ("phases.1.loss.dice", -1, "`phases.fine.loss.dice`: must be at least 0 (got -1)"),
        ("phases.fine.loss.dice", float("nan"), "`phases.fine.loss.dice`: must be a finite number (got nan)"),
        ("size", [1], "`size.1`: has too few values (got [1])"),
        ("size", [1, 2, 3], "`size`: has too many values, 2 at most (got [1, 2, 3])"),
        (
            "model.kind",
            "unett",
            "`model.kind`: 'unett' is not known; did you mean `unet`?; known: `unet`, `backbone`, `sized`",
        ),
        ("model.kind", 3, "`model.kind`: 3 is not known; known: `unet`, `backbone`, `sized`"),
        (
            "model",
            {"kind": "x"},
            "`model`: 'x' is not known; known: `unet`, `backbone`, `sized`",
        ),
        ("model", {"kind": "unet", "widht": 3}, "`model.widht` is not a field"),
        ("model", {}, "`model`: has no `kind`; give it one (got {}); write {kind: unet}, say"),
        ("model", 3, "`model`: must be a mapping (got 3); write {kind: sized, size: 3}, say"),
        ("model", 0, "`model`: must be a mapping (got 0); write {kind: unet}, say"),
        ("model", "backbone", "`model`: must be a mapping (got 'backbone'); write {kind: backbone}, say"),
        (
            "phases.fine.loss",
            0.5,
            "`phases.fine.loss`: must be a mapping (got 0.5); set its parts, such as"
            " `phases.fine.loss.dice` or `phases.fine.loss.bce`",
        ),
    ],
)
def test_values_are_checked_strictly(path: str, value: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(RECIPE, {path: value})
    assert caught.value.problems == (problem,)


def test_a_whole_number_will_do_for_a_float() -> None:
    assert override(RECIPE, {"phases.fine.loss.dice": 2}).phases[1].loss.dice == 2.0


def test_all_problems_are_told_at_once() -> None:
    values = {"model.widht": 3, "model.depth": 99, "phases.warm.loss.dice": 0, "phases.warm.loss.bce": 0}
    with pytest.raises(SpecError) as caught:
        override(RECIPE, values)
    assert caught.value.problems == (
        "`model.widht` is not a field of recipe `toy`; did you mean `model.width`?",
        "`model.depth`: must be at most 6 (got 99)",
        "`phases.warm.loss`: dice and bce are both 0; make one positive",
    )


def test_fields_beneath_a_kind_that_does_not_exist_are_not_blamed() -> None:
    with pytest.raises(SpecError) as caught:
        override(RECIPE, {"model.kind": "backbon", "model.encoder": "resnet34"})
    assert len(caught.value.problems) == 1


@given(st.text(), st.integers() | st.text() | st.booleans() | st.none() | st.lists(st.integers(), max_size=3))
def test_any_path_and_value_give_a_recipe_or_a_spec_error(path: str, value: Any) -> None:
    try:
        changed = override(RECIPE, {path: value})
    except SpecError:
        return
    assert resolve(changed.plain(), Recipe, path).value == value


@given(st.data())
def test_what_is_set_is_what_is_found(data: st.DataObject) -> None:
    path = data.draw(
        st.sampled_from(["model.width", "model.depth", "phases.warm.stop", "phases.0.stop", "size.0"])
    )
    value = data.draw(st.integers(1, 6))
    changed = override(RECIPE, {path: value})
    assert resolve(changed.plain(), Recipe, path).value == value
    assert override(changed, {path: resolve(RECIPE.plain(), Recipe, path).value}) == RECIPE
