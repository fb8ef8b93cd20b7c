"""A fixed value stays as it was given: in the caller's mapping, in each trial, in the printed command."""

import copy
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fissura.core.errors import SpaceError
from fissura.recipes import RECIPES
from fissura.spaces import LoadedSpace, load_space, load_text, override, parse_value, search_spaces
from fissura.spaces.fields import resolve
from fissura.spaces.load import OF_THE_SEARCH
from fissura.spaces.strict_yaml import write_value
from fissura.spaces.sweep import plan_sweep
from fissura.studies.study import Plan

LR = "phases.train.optimizer.lr"


def some(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings of a kind, with any of its fields."""
    return st.fixed_dictionaries({"kind": st.just(kind)}, optional=fields)


PROFILES = {name: yaml.safe_load(path.read_text())["profiles"] for name, path in search_spaces().items()}
RATES, SHARES = st.floats(1e-9, 1), st.floats(0, 1)
OPTIMIZERS = st.one_of(
    some("adam", lr=RATES, weight_decay=SHARES), some("sgd", lr=RATES, momentum=st.floats(0, 0.99))
)
MODELS = st.one_of(
    some("unet", width=st.integers(1, 64), depth=st.integers(1, 4)),
    some("attention_resunet", width=st.integers(1, 64)),
    some("backbone_unet", encoder=st.sampled_from(["resnet34", "mit_b0"])),
)
MAPPINGS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "cnn_svm": {
        "classifier": st.one_of(
            some("svm", C=RATES, gamma=RATES),
            some("forest", trees=st.integers(1, 500), depth=st.integers(1, 40)),
        ),
        "whitening": st.one_of(some("none"), some("zca", regularisation=RATES, rank=st.just(None))),
        "compression": st.fixed_dictionaries({"method": st.just("prune")}, optional={"share": st.just(0.5)}),
    },
    "cirl": {
        "model": MODELS,
        "phases.ambiguity.loss": some("ambiguity_aware", lam=RATES),
        "phases.clustering.loss": some("clustering", k=st.integers(1, 99), gamma=st.floats(0.1, 1)),
        "phases.clustering.optimizer": OPTIMIZERS,
    },
    "attention_resunet": {
        "phases.train.optimizer": OPTIMIZERS,
        "threshold": st.one_of(some("validation"), some("given", value=SHARES)),
        "data.crop": some("random", size=st.integers(32, 96)),
    },
    "deeplab_focal": {"phases.train.loss": st.one_of(some("focal", gamma=RATES), some("bce"))},
    "small_unet": {"model": MODELS, "phases.0.optimizer": OPTIMIZERS},
    "unet_backbones": {
        "data.augmentation": st.fixed_dictionaries({}, optional={"vertical_flip": SHARES, "hue": SHARES})
    },
}


def sample(space: LoadedSpace, *, trials: int) -> list[dict[str, Any]]:
    """The paper's own point, and others that Optuna's random sampler asks for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.paper_point(), *(space.suggest(study.ask()) for _ in range(trials))]


def at(recipe: Any, path: str) -> Any:
    """What a recipe has at a path."""
    return resolve(recipe.plain(), type(recipe), path).value


def fixed_in_words(command: str) -> dict[str, Any]:
    """The `--set` of a command line, read as the command reads them."""
    words = shlex.split(command)
    sets = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    return {path: parse_value(text) for path, _, text in (one.partition("=") for one in sets)}


def plan_of(space: LoadedSpace, fixed: dict[str, Any]) -> Plan:
    """The plan of a study of this space."""
    return Plan(
        name="study", space=space.text, profile=space.profile, fixed=fixed, datasets=(), content="c",
        trials=5, seed=0,
    )  # fmt: skip


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_a_fixed_mapping_is_what_every_trial_has_and_is_never_written_into(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MAPPINGS)))
    profile = data.draw(st.sampled_from([None, *PROFILES[name]]))
    path = data.draw(st.sampled_from(sorted(MAPPINGS[name])))
    mapping = data.draw(MAPPINGS[name][path])
    given_values = copy.deepcopy(mapping)
    fixed = {path: given_values}
    space = load_space(name, profile=profile, fixed=fixed)
    plan = plan_of(space, fixed)
    canonical = resolve(space.recipe.plain(), type(space.recipe), path).path
    assert not [other for other in space.distributions if other.startswith(f"{canonical}.")]
    recipes = [space.recipe_for(point) for point in sample(space, trials=5)]
    sweep, _ = plan_sweep(space, values=2, over=(), content="c", taken=set())
    recipes += [space.recipe_for(space.completed(dict([point]))) for point in sweep.points]
    whole = at(recipes[0], path)
    assert whole.items() >= mapping.items()
    assert all(at(recipe, path) == whole for recipe in recipes)
    assert given_values == mapping
    assert plan.load_space(Path("study")).entries == space.entries
    assert fixed_in_words(plan.command(Path("/studies/it"))) == {path: mapping}


@given(st.sampled_from(sorted(set(MAPPINGS) - {"cnn_svm"})), st.data())
def test_a_training_leaves_a_mapping_as_it_was_given(name: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(MAPPINGS[name])))
    mapping = data.draw(MAPPINGS[name][path])
    fixed = {path: copy.deepcopy(mapping)}
    trained = override(RECIPES[name](), fixed)
    assert at(trained, path).items() >= mapping.items()
    assert fixed == {path: mapping}


def test_the_mapping_that_became_300_trees() -> None:
    forest = {"kind": "forest", "trees": 50, "depth": 10, "feature_share": 0.3}
    fixed = {"classifier": forest, "whitening": {"kind": "none"}}
    space = load_space("cnn_svm", profile="cpu", fixed=fixed)
    for point in sample(space, trials=20):
        assert set(point) == set()
        assert at(space.recipe_for(point), "classifier") == forest
        assert at(space.recipe_for(point), "whitening") == {"kind": "none"}
    assert fixed == {
        "classifier": {"kind": "forest", "trees": 50, "depth": 10, "feature_share": 0.3},
        "whitening": {"kind": "none"},
    }


@pytest.mark.parametrize("name", sorted(search_spaces()))
def test_each_profile_s_plain_values_are_what_its_trials_have(name: str) -> None:
    for profile, section in PROFILES[name].items():
        space = load_space(name, profile=profile)
        plain = {
            path: value
            for path, value in section.items()
            if path not in OF_THE_SEARCH
            and not (isinstance(value, dict) and {"choice", "int", "float"} & set(value))
        }
        for point in sample(space, trials=10):
            recipe = space.recipe_for(point)
            for path, value in plain.items():
                found = at(recipe, path)
                assert found.items() >= value.items() if isinstance(value, dict) else found == value


def test_the_small_file_s_profile_has_the_regularisation_that_it_names() -> None:
    space = load_space("cnn_svm", profile="small")
    for point in sample(space, trials=20):
        whitening = {"kind": "zca", "regularisation": 0.1, "rank": None}
        assert at(space.recipe_for(point), "whitening") == whitening


SPACE = {
    "recipe": "small_unet",
    "objective": {"metric": "val/f1", "mode": "max"},
    "space": {
        "model.kind": {"choice": ["unet", "attention_resunet"]},
        "model.depth": {"int": [1, 4], "when": {"model.kind": ["unet"]}},
        LR: {"float": [0.001, 0.1], "when": {"model.kind": ["unet"]}},
    },
}


def load(fixed: dict[str, Any], **more: Any) -> LoadedSpace:
    """The space above with these values fixed."""
    return load_text(
        yaml.safe_dump(SPACE | more),
        source="f",
        profile=next(iter(more.get("profiles", {None: 0}))),
        fixed=fixed,
    )


@pytest.mark.parametrize(("kind", "searched"), [("unet", {LR}), ("attention_resunet", set())])
def test_a_condition_on_a_field_of_a_fixed_mapping_goes_by_the_mapping(kind: str, searched: set[str]) -> None:
    for space in (load({"model": {"kind": kind}}), load({}, profiles={"one": {"model": {"kind": kind}}})):
        assert {path for point in sample(space, trials=5) for path in point} == searched


def test_what_is_set_beneath_a_mapping_goes_over_it_in_any_order() -> None:
    for fixed in (
        {"model.depth": 2, "model": {"kind": "unet", "depth": 4, "width": 4}},
        {"model": {"kind": "unet", "depth": 4, "width": 4}, "model.depth": 2},
    ):
        space = load(fixed)
        model = at(space.recipe_for(space.paper_point()), "model")
        assert (model["depth"], model["width"]) == (2, 4)


def test_a_profile_s_values_beneath_a_mapping_of_the_command_line_are_left_out() -> None:
    space = load({"model": {"kind": "unet", "width": 4}}, profiles={"narrow": {"model.depth": 1}})
    assert at(space.recipe_for(space.paper_point()), "model.depth") == 4  # a U-Net's own, not the profile's


def test_a_profile_that_sets_a_mapping_and_searches_beneath_it_is_refused() -> None:
    profiles = {"both": {"model.depth": {"int": [1, 2]}, "model": {"kind": "unet"}}}
    with pytest.raises(SpaceError, match="lies beneath `model`, which this profile sets as a whole"):
        load({}, profiles=profiles)


def test_a_caller_may_change_a_mapping_after_it_was_given() -> None:
    mapping = {"kind": "unet", "width": 4}
    space = load({"model": mapping})
    mapping["width"] = 8
    assert at(space.recipe_for(space.paper_point()), "model.width") == 4


TEXTS = st.text(st.characters(codec="ascii")) | st.text(st.characters(categories=("L", "N", "P")))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


@given(VALUES)
def test_a_value_in_a_printed_command_is_read_as_it_was_given(value: Any) -> None:
    assert parse_value(write_value(value)) == value


@pytest.mark.parametrize("profile", [None, "gpu"])
def test_a_fixed_kind_brings_its_own_settings_and_needs_none_of_the_papers(profile: str | None) -> None:
    """The paper has no settings of a kind that it does not use: ImageNet's weights were taken for its."""
    space = load_space("cirl", profile=profile, fixed={"model.kind": "backbone_unet"})
    recipes = [space.recipe_for(point) for point in sample(space, trials=3)]
    assert {(at(one, "model.kind"), at(one, "model.weights")) for one in recipes} == {
        ("backbone_unet", "none")
    }
