"""A search space is checked against its recipe as a whole, and every point of it builds a recipe."""

import subprocess
import sys
import time
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fissura.core.errors import SpaceError, SpecError
from fissura.recipes import RECIPES
from fissura.spaces import LoadedSpace, load_space, load_text, search_spaces

LR, DEPTH, WIDTH, KIND, ENCODER = (
    "phases.train.optimizer.lr",
    "model.depth",
    "model.width",
    "model.kind",
    "model.encoder",
)


def write(space: dict[str, Any], **more: Any) -> str:
    """The text of a space over `small_unet`."""
    plain = {"recipe": "small_unet", "objective": {"metric": "val/f1", "mode": "max"}, "space": space, **more}
    return yaml.safe_dump(plain, sort_keys=False)


def load(space: dict[str, Any], **more: Any) -> LoadedSpace:
    """A space over `small_unet`."""
    return load_text(write(space, **more), source="f")


def problems(space: dict[str, Any], **more: Any) -> list[str]:
    """What is wrong with a space over `small_unet`, without file and line."""
    with pytest.raises(SpaceError) as caught:
        load(space, **more)
    return [problem.split(": ", 1)[1] for problem in caught.value.problems]


def sample(space: LoadedSpace, *, trials: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points that Optuna's random sampler asks for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(trials)]


# -- the spaces that come with fissura


def test_each_recipe_has_one_search_space_of_its_name_and_none_is_left_over() -> None:
    assert set(search_spaces()) == set(RECIPES)
    for name in RECIPES:
        assert load_space(name).definition.recipe == name


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_search_space_loads_in_each_profile_and_starts_with_the_paper(name: str) -> None:
    space = load_space(name)
    assert space.recipe_for(space.paper_point()) == RECIPES[name]()
    for profile in space.definition.profiles:
        loaded = load_space(name, profile=profile)
        assert loaded.recipe_for(loaded.paper_point()).name == name
        for point in sample(loaded, trials=5):
            loaded.recipe_for(point)


def test_a_space_loads_fast() -> None:
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        load_space("unet_backbones", profile="cpu")
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.3


def test_a_broken_file_is_told_without_loading_torch_or_optuna() -> None:
    program = (
        "import sys; from fissura.spaces import load_space\n"
        "try: load_space('absent.yaml')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print({'torch', 'optuna', 'ray'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "SpaceError\nset()\n"


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(SpaceError, match="did you mean `unet_backbones`"):
        load_space("unet_backbone")
    with pytest.raises(SpaceError, match="there is no such file"):
        load_space("absent.yaml")


# -- conditions


CONDITIONAL = {
    # the condition may stand below what depends on it
    DEPTH: {"int": [1, 4], "when": {KIND: ["unet"]}},
    KIND: {"choice": ["unet", "backbone_unet"]},
    ENCODER: {"choice": ["resnet34", "mit_b0"], "when": {KIND: ["backbone_unet"]}},
    "model.weights": {"choice": ["none"]},
}


def test_a_parameter_is_asked_for_only_while_its_condition_holds() -> None:
    space = load(CONDITIONAL)
    points = sample(space, trials=30)
    assert {point[KIND] for point in points} == {"unet", "backbone_unet"}
    for point in points:
        assert (DEPTH in point) == (point[KIND] == "unet")
        assert (ENCODER in point) == (point[KIND] == "backbone_unet")
        model = space.recipe_for(point).model.plain()
        assert model.items() >= {path.removeprefix("model."): value for path, value in point.items()}.items()


def test_the_paper_point_holds_only_active_parameters() -> None:
    assert load(CONDITIONAL).paper_point() == {KIND: "unet", DEPTH: 3, "model.weights": "none"}


def test_conditions_chain() -> None:
    space = load(
        {
            WIDTH: {"choice": [4, 8], "when": {DEPTH: [2]}},
            DEPTH: {"int": [2, 3], "when": {"data.batch_size": [8]}},
            "data.batch_size": {"choice": [8, 16]},
        }
    )
    for point in sample(space, trials=40):
        assert (DEPTH in point) == (point["data.batch_size"] == 8)
        assert (WIDTH in point) == (point.get(DEPTH) == 2)


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ({"data.batch_sise": [8]}, "which this space does not search; did you mean `data.batch_size`?"),
        ({"data.batch_size": [9]}, "`data.batch_size` = 9, which is not among 8, 16"),
        ({"data.batch_size": [True]}, "`data.batch_size` = true, which is not among 8, 16"),
        ({DEPTH: [3]}, "its `when` waits for itself"),
        ({"data.batch_size": 8}, "`when.data.batch_size` must be a list in brackets (got 8)"),
        ({"data.batch_size": []}, "`when.data.batch_size` must have at least 1 value (got [])"),
    ],
)
def test_a_condition_that_cannot_hold_is_an_error(when: dict[str, Any], problem: str) -> None:
    told = problems({DEPTH: {"int": [2, 3], "when": when}, "data.batch_size": {"choice": [8, 16]}})
    assert len(told) == 1
    assert problem in told[0]


def test_a_field_of_some_kinds_only_needs_a_condition() -> None:
    unconditional = {KIND: CONDITIONAL[KIND], DEPTH: {"int": [1, 4]}}
    assert problems(unconditional) == [
        "`model.depth` is not a field of recipe `small_unet` while `model.kind` is backbone_unet; "
        "add `when: {model.kind: [unet]}`"
    ]


# -- values


@pytest.mark.parametrize(
    ("path", "distribution", "problem"),
    [
        (LR, {"float": [0.0, 0.1]}, f"`{LR}`: must be above 0 (got 0.0)"),
        (LR, {"float": [0.001, 20.0]}, f"`{LR}`: must be at most 10 (got 20.0)"),
        (LR, {"float": [0.1, 0.01]}, f"`{LR}`: low 0.1 must be below high 0.01"),
        (LR, {"float": [0.01, 0.01]}, f"`{LR}`: low 0.01 must be below high 0.01"),
        (LR, {"float": [-1, 1], "log": True}, "a logarithmic range needs a low above 0 (got -1)"),
        (LR, {"float": [0.001, 1], "log": True, "step": 0.1}, "either `log` or `step`; drop one"),
        (LR, {"float": [0.001, 1], "step": 2}, "step 2 is longer than the range from 0.001 to 1"),
        (LR, {"float": ["0.001", 1]}, f"`{LR}`: must be a number (got '0.001'); write it without quotes"),
        (LR, {"float": [0.001]}, f"`{LR}`: has too few values (got [0.001])"),
        (LR, {"choice": []}, f"`{LR}`: must have at least 1 value (got [])"),
        (LR, {"choice": [0.003, 0.0]}, f"`{LR}`: must be above 0 (got 0.0)"),
        (LR, {"choice": [0.003, "0.01"]}, "mixes numbers and text"),
        (LR, {"choice": [0.003, 0.003]}, f"`{LR}`: 0.003 is given twice; remove one"),
        (WIDTH, {"choice": [8, 8.0]}, f"`{WIDTH}`: 8.0 is given twice; remove one"),
        (WIDTH, {"float": [1, 16]}, f"`{WIDTH}`: must be a whole number"),
        (WIDTH, {"int": [1.5, 16]}, f"`{WIDTH}`: must be a whole number (got 1.5)"),
        (WIDTH, {"int": [8, 2**60]}, "must be at most 9,007,199,254,740,992"),
        (WIDTH, {"int": [16, 32]}, f"`{WIDTH}`: the recipe's own value 8 is not among 16 to 32; widen it"),
        (WIDTH, {"int": [5, 32], "step": 2}, "own value 8 is not among 5 to 31 in steps of 2; widen it"),
        ("data", {"choice": [{"batch_size": 3}]}, "is neither text, nor a number, true, false or null"),
        (WIDTH, 8, "a parameter is {choice: [...]}, {int: [low, high]} or {float: [low, high]} (got 8)"),
        (WIDTH, {"int": [4, 8], "float": [4, 8]}, "a parameter is {choice: [...]}, {int: [low, high]} or"),
    ],
)
def test_values_are_checked_against_the_field(path: str, distribution: Any, problem: str) -> None:
    told = problems({path: distribution})
    assert len(told) == 1
    assert problem in told[0]


def test_a_kind_that_brings_a_broken_neighbour_is_told() -> None:
    told = problems(
        {
            "phases.train.loss.dice_weight": {"choice": [0.0, 1.0]},
            "phases.train.loss.bce_weight": {"float": [0.5, 1.0]},
        },
        profiles={"dice": {"phases.train.loss.bce_weight": 0}},
    )
    assert len(told) == 1
    assert "dice_weight and bce_weight are both 0" in told[0]
    assert told[0].endswith("(with `phases.train.loss.dice_weight` = 0.0)")


def test_a_step_need_not_divide_the_range() -> None:
    space = load({WIDTH: {"int": [2, 9], "step": 3}, LR: {"float": [0.001, 0.01], "step": 0.002}})
    points = sample(space, trials=40)
    assert {point[WIDTH] for point in points} == {2, 5, 8}
    assert {round(point[LR], 6) for point in points} <= {0.001, 0.003, 0.005, 0.007, 0.009}


# -- the rest of the file


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"recipe": "small_unett"}, "recipe `small_unett` is not known; did you mean `small_unet`?"),
        ({"recipe": 3}, "`recipe`: must be text (got 3)"),
        ({"trails": 3}, "`trails` is not a key here; did you mean `trials`?"),
        ({"trials": 0}, "`trials`: must be at least 1 (got 0)"),
        ({"scheduler": {"kind": "asha", "reduction": 1}}, "must be at least 2 (got 1)"),
        ({"scheduler": {"kind": "none", "grace": 1}}, "`grace` is not a key here; there are kind"),
        ({"scheduler": "asha"}, "`scheduler`: must be a mapping (got 'asha'); write {kind: asha}, say"),
        ({"sampler": {"seed": 3}}, "`sampler`: has no `kind`; give it one"),
        ({"objective": {"metric": "val/f1"}}, "`objective.mode`: is missing; give it a value"),
        ({"objective": []}, "`objective`: must have at least 1 value (got [])"),
        ({"profiles": {"cpu": 3}}, "`profiles.cpu`: must be a mapping (got 3)"),
        ({"profiles": {"cpu": {WIDTH: 0}}}, f"`{WIDTH}`: must be at least 1 (got 0)"),
        ({"profiles": {"cpu": {"model.widht": 8}}}, "did you mean `model.width`?"),
        ({"profiles": {"cpu": {WIDTH: {"int": [9, 2]}}}}, "low 9 must be below high 2"),
        ({"profiles": {"cpu": {KIND: "backbone_unet"}}}, "`model.width` is not a field of recipe"),
        (
            {"objective": [{"metric": "val/f1", "mode": mode} for mode in ("max", "min")]},
            "`objective`: a metric is given twice; remove one",
        ),
        (
            {
                "objective": [{"metric": "val/f1", "mode": "max"}, {"metric": "latency_ms", "mode": "min"}],
                "scheduler": {"kind": "asha"},
            },
            "`scheduler`: asha compares trials by one objective, and there are 2; write {kind: none}",
        ),
    ],
)
def test_each_key_is_checked(more: dict[str, Any], problem: str) -> None:
    told = problems({WIDTH: {"int": [4, 12]}}, **more)
    assert len(told) == 1
    assert problem in told[0]


def test_missing_sections_are_named() -> None:
    with pytest.raises(SpaceError) as caught:
        load_text("trials: 3\n", source="f")
    assert caught.value.problems == tuple(
        f"f:1: `{key}`: is missing; give it a value" for key in ("objective", "recipe", "space")
    )


def test_many_objectives_keep_their_order() -> None:
    objectives = [{"metric": "val/f1", "mode": "max"}, {"metric": "parameters", "mode": "min"}]
    space = load({WIDTH: {"int": [4, 12]}}, objective=objectives)
    assert [objective.plain() for objective in space.objectives] == objectives


def test_one_field_under_two_names_is_an_error() -> None:
    by_index = "phases.0.optimizer.lr"
    told = problems({by_index: {"float": [0.001, 1.0]}, LR: {"float": [0.001, 1.0]}})
    assert told == [f"`{LR}` is the same field as `{by_index}`; remove one"]
    assert list(load({by_index: {"float": [0.001, 1.0]}}).distributions) == [LR]


def test_a_grace_that_stops_nothing_is_noted() -> None:
    assert load({WIDTH: {"int": [4, 12]}}, scheduler={"kind": "asha", "grace": 3}).notes == ()
    (note,) = load({WIDTH: {"int": [4, 12]}}, scheduler={"kind": "asha", "grace": 30}).notes
    assert "`scheduler.grace` is 30 and a trial's last phase has 24 epochs: none will be stopped" in note


@pytest.mark.parametrize(("kind", "name"), [("tpe", "BoundedTPE"), ("random", "RandomSampler")])
def test_a_sampler_repeats_itself_by_its_seed(kind: str, name: str) -> None:
    space = load({LR: {"float": [0.001, 1.0], "log": True}}, sampler={"kind": kind, "seed": 5})

    def run() -> list[dict[str, Any]]:
        sampler = space.definition.sampler.build()
        assert type(sampler).__name__ == name
        study = optuna.create_study(sampler=sampler)
        return [space.suggest(study.ask()) for _ in range(3)]

    assert run() == run()


# -- profiles and fixed values


def test_a_profile_fixes_a_path_and_takes_it_out_of_the_space() -> None:
    profiles = {"quick": {WIDTH: 4, "epochs": 2, "data.crop": {"kind": "random", "size": 64}}}
    space = load_text(write({WIDTH: {"int": [4, 12]}}, profiles=profiles), source="f", profile="quick")
    assert not space.distributions
    recipe = space.recipe_for(space.paper_point())
    assert (recipe.model.plain()["width"], recipe.epochs) == (4, 2)
    assert recipe.data.crop.plain() == {"kind": "random", "size": 64, "per_image": 1}
    assert space.notes == ()


def test_a_profile_that_sets_a_kind_settles_what_depends_on_it() -> None:
    profiles = {"other": {KIND: "backbone_unet", "model.weights": "none"}}
    space = load_text(write(CONDITIONAL, profiles=profiles), source="f", profile="other")
    assert space.paper_point() == {ENCODER: "resnet34"}
    assert {tuple(point) for point in sample(space, trials=5)} == {(ENCODER,)}
    assert space.recipe_for(space.paper_point()).model.kind == "backbone_unet"


def test_what_takes_the_place_of_a_conditional_parameter_keeps_its_condition() -> None:
    profiles = {"narrow": {DEPTH: {"choice": [1, 2]}, ENCODER: "mit_b0"}}
    space = load_text(write(CONDITIONAL, profiles=profiles), source="f", profile="narrow")
    for point in sample(space, trials=20):
        assert point.get(DEPTH, 0) in ([1, 2] if point[KIND] == "unet" else [0])
        assert ENCODER not in point
        assert space.recipe_for(point).model.plain().get("encoder") == (
            None if point[KIND] == "unet" else "mit_b0"
        )


def test_a_profile_may_leave_the_paper_and_says_so() -> None:
    text = write({WIDTH: {"int": [4, 12]}}, profiles={"narrow": {WIDTH: {"choice": [2, 4]}}})
    space = load_text(text, source="f", profile="narrow")
    assert space.paper_point() == {WIDTH: 2}
    (note,) = space.notes
    assert note == "f:12: `model.width`: the recipe's own value 8 is not among 2, 4; the first trial has 2"


def test_an_unknown_profile_brings_the_nearest() -> None:
    text = write({WIDTH: {"int": [4, 12]}}, profiles={"narrow": {WIDTH: 4}})
    with pytest.raises(SpaceError, match="profile `narow` is not known; did you mean `narrow`"):
        load_text(text, source="f", profile="narow")


def test_a_profile_may_have_a_sampler_a_scheduler_and_trials_of_its_own() -> None:
    own = {"trials": 3, "sampler": {"kind": "random"}, "scheduler": {"kind": "median", "grace": 2}, WIDTH: 4}
    text = write(
        {WIDTH: {"int": [4, 12]}, DEPTH: {"int": [1, 4]}}, profiles={"own": own, "other": {WIDTH: 4}}
    )
    loaded = {name: load_text(text, source="f", profile=name).definition for name in (None, "own", "other")}
    assert {name: one.trials for name, one in loaded.items()} == {None: 20, "own": 3, "other": 20}
    assert {name: one.sampler.kind for name, one in loaded.items()} == {
        None: "tpe", "own": "random", "other": "tpe",
    }  # fmt: skip
    assert loaded["own"].scheduler.plain() == {"kind": "median", "grace": 2}
    told = problems({WIDTH: {"int": [4, 12]}}, profiles={"own": {"sampler": {"kind": "tpee"}}})
    assert told == ["`sampler`: 'tpee' is not known; did you mean `tpe`?; known: `tpe`, `random`, `adaptive`"]


def test_a_fixed_value_is_in_every_trial_that_has_such_a_field() -> None:
    fixed = {"data.batch_size": 8, ENCODER: "mit_b0"}
    conditional = CONDITIONAL | {"data.batch_size": {"choice": [8, 16], "when": {KIND: ["unet"]}}}
    space = load_text(write(conditional), source="f", fixed=fixed)
    for point in sample(space, trials=20):
        recipe = space.recipe_for(point)
        assert recipe.data.batch_size == 8
        assert recipe.model.plain().get("encoder", "mit_b0") == "mit_b0"


def test_a_fixed_value_without_a_field_is_refused() -> None:
    with pytest.raises(SpaceError) as caught:
        load_text(write(CONDITIONAL), source="f", fixed={KIND: "unet", ENCODER: "mit_b0"})
    assert "`model.encoder` is not a field of recipe `small_unet` while `model.kind` is unet" in str(
        caught.value
    )
    with pytest.raises(SpaceError, match=r"`phases\.0\.optimizer\.lr` is the same field as"):
        load_text(write(CONDITIONAL), source="f", fixed={LR: 0.1, "phases.0.optimizer.lr": 0.2})


def test_an_unknown_profile_is_told_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys; from fissura import api; from fissura.core.errors import SpaceError\n"
        "from fissura.api.planning import Times; from fissura.cli import main\n"
        "for ask in (\n"
        "    lambda: api.search('small_unet', data=['folder:absent'], profile='cpu'),\n"
        "    lambda: api.plan('small_unet', times=Times(seconds=1.0), profile='cpu'),\n"
        "):\n"
        "    try: ask()\n"
        "    except SpaceError as error: print(str(error).split(': ', 1)[1])\n"
        "sys.argv = ['fissura', 'search', 'small_unet', '--data', 'folder:absent', '--profile', 'cpu']\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, {'torch', 'optuna', 'ray'} & set(sys.modules))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    rule = "profile `cpu` is not known; known: demo"
    assert told.stdout.splitlines() == [rule, rule, "2 set()"]
    assert rule in told.stderr


def test_fixed_values_win_over_the_profile() -> None:
    text = write({WIDTH: {"int": [4, 12]}, DEPTH: {"int": [1, 4]}}, profiles={"quick": {WIDTH: 4}})
    space = load_text(text, source="f", profile="quick", fixed={DEPTH: 1, WIDTH: 6})
    assert not space.distributions
    assert space.recipe_for({}).model.plain().items() >= {"depth": 1, "width": 6}.items()


def test_broken_fixed_values_are_told_without_a_line() -> None:
    with pytest.raises(SpaceError) as caught:
        load_text(write({DEPTH: {"int": [1, 4]}}), source="f", fixed={WIDTH: "8", "model.dept": 3})
    assert caught.value.problems == (
        "`model.dept` is not a field of recipe `small_unet`; did you mean `model.depth`?",
        f"`{WIDTH}`: must be a whole number (got '8'); write it without quotes",
    )


# -- properties


FIELDS = {
    WIDTH: st.lists(st.integers(1, 256), min_size=2, max_size=2, unique=True).map(lambda ends: ("int", ends)),
    "data.batch_size": st.lists(st.integers(1, 64), min_size=1, max_size=5, unique=True).map(
        lambda values: ("choice", values)
    ),
    LR: st.lists(st.floats(1e-9, 10), min_size=2, max_size=2, unique=True).map(lambda ends: ("float", ends)),
    "data.augmentation.rotate_90": st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(
        lambda ends: ("float", ends)
    ),
    "phases.train.early_stopping": st.sampled_from([[None, 3], [5], [None]]).map(
        lambda values: ("choice", values)
    ),
    "phases.train.loss.over": st.just(("choice", ["batch", "image"])),
}


@given(st.data())
def test_every_point_of_a_space_that_loads_builds_the_recipe_it_names(data: st.DataObject) -> None:
    own = RECIPES["small_unet"]().plain()
    space = {}
    for path in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, unique=True)):
        form, values = data.draw(FIELDS[path])
        log = form != "choice" and min(values) > 0 and data.draw(st.booleans())
        space[path] = {form: values if form == "choice" else sorted(values), **({"log": True} if log else {})}
    text = write({}, profiles={"own": space}).replace("space: {}", "space: {epochs: {int: [1, 30]}}")
    loaded = load_text(text, source="f", profile="own")
    for point in [loaded.paper_point(), *sample(loaded, trials=3, seed=data.draw(st.integers(0, 99)))]:
        assert set(point) == {*space, "epochs"}
        recipe = loaded.recipe_for(point)
        assert recipe.model.plain()["width"] == point.get(WIDTH, own["model"]["width"])
        assert recipe.data.batch_size == point.get("data.batch_size", own["data"]["batch_size"])
        assert recipe.epochs == point["epochs"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_space_survives_being_written_and_read(name: str) -> None:
    space = load_space(name)
    again = load_text(yaml.safe_dump(space.definition.plain()), source="f")
    assert again.definition == space.definition
    assert load_text(space.text, source=space.source) == space


@given(st.data())
def test_a_damaged_file_loads_or_is_refused_line_by_line(data: st.DataObject) -> None:
    text = search_spaces()["small_unet"].read_text()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        patch = data.draw(st.text("{}[]:,-&*'\"#? \n\tab019.e", max_size=3))
        text = text[:place] + patch + text[place + data.draw(st.integers(0, 6)) :]
    try:
        space = load_text(text, source="f")
    except SpaceError as error:
        told = error.problems
    else:
        told = ()
        space.recipe_for(space.paper_point())
    assert all(problem.startswith("f:") and problem.isprintable() for problem in told)


def test_a_point_outside_the_space_is_still_checked() -> None:
    with pytest.raises(SpecError, match=r"`model\.width`: must be a whole number"):
        load({WIDTH: {"int": [4, 12]}}).recipe_for({WIDTH: 4.5})
