"""A one-at-a-time sweep: which trials it is, how a study plans it, and how it is run to its end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from fissura.core.errors import SpaceError
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.search.schedulers import scheduler_for
from fissura.distributed.search.searcher import StudySearch
from fissura.records.study_ranking import best_trials, finished
from fissura.records.trial_attributes import PAPER, RUN, SWEPT
from fissura.spaces import LoadedSpace, load_text
from fissura.spaces.distributions import Choice, FloatRange, IntRange
from fissura.spaces.sweep import plan_sweep
from fissura.studies.plan import Request, make_plan
from fissura.studies.results import drop_checkpoints
from fissura.studies.study import Plan, Study

LR, WIDTH, DEPTH = "phases.train.optimizer.lr", "model.width", "model.depth"
CONTENT = "c" * 16
SPACE: dict[str, Any] = {
    LR: {"float": [3.0e-4, 3.0e-2], "log": True},
    WIDTH: {"choice": [4, 8, 16]},
    DEPTH: {"int": [2, 4]},
}


def text(space: dict[str, Any], **more: Any) -> str:
    """A space over `small_unet`, whose own learning rate is 0.003, width 8 and depth 3."""
    return yaml.safe_dump(
        {"recipe": "small_unet", "objective": {"metric": "val/f1", "mode": "max"}, "space": space, **more},
        sort_keys=False,
    )


def load(space: dict[str, Any], **more: Any) -> LoadedSpace:
    return load_text(text(space, **more), source="f")


def points(space: dict[str, Any], *, values: int = 3, over: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    sweep, _ = plan_sweep(load(space), values=values, over=over, content=CONTENT, taken=())
    return list(sweep.points)


class TestTheValues:
    @pytest.mark.parametrize(
        ("distribution", "values"),
        [
            (FloatRange.model_validate({"float": (0.1, 0.5)}), [0.1, 0.2, 0.3, 0.4, 0.5]),
            (
                FloatRange.model_validate({"float": (1e-5, 1e-3), "log": True}),
                [1e-5, 3.162e-5, 1e-4, 3.162e-4, 1e-3],
            ),
            (FloatRange.model_validate({"float": (0.0, 1.0), "step": 0.3}), [0.0, 0.3, 0.6, 0.9]),
            (
                FloatRange.model_validate({"float": (8.0, 8 + 2**-10)}),
                [8.0, 8 + 2**-12, 8 + 2**-11, 8 + 3 * 2**-12, 8 + 2**-10],
            ),
            (IntRange.model_validate({"int": (5, 80), "log": True}), [5, 10, 20, 40, 80]),
            (IntRange.model_validate({"int": (2, 4)}), [2, 3, 4]),
            (IntRange.model_validate({"int": (4, 16), "step": 4}), [4, 8, 12, 16]),
            (Choice.model_validate({"choice": ("a", None)}), ["a", None]),
        ],
        ids=str,
    )  # fmt: skip
    def test_reach_from_end_to_end_and_are_what_a_trial_may_have(
        self, distribution: Any, values: list[Any]
    ) -> None:
        assert distribution.spread(5) == values
        assert all(distribution.contains(value) for value in distribution.spread(5))


class TestThePoints:
    def test_vary_one_parameter_each_and_leave_the_papers_own_value_to_trial_0(self) -> None:
        swept = points(SPACE)
        assert sorted(swept[:4]) == [(DEPTH, 2), (DEPTH, 4), (WIDTH, 4), (WIDTH, 16)]
        assert swept[4:] == [(LR, 0.0003), (LR, 0.03)]

    def test_are_of_the_named_parameters_alone(self) -> None:
        assert points(SPACE, over=(DEPTH,)) == [(DEPTH, 2), (DEPTH, 4)]
        assert points(SPACE, over=("phases.0.optimizer.lr", LR)) == [(LR, 0.0003), (LR, 0.03)]

    def test_leave_out_what_the_papers_point_does_not_ask_for(self) -> None:
        conditional = {
            "model.kind": {"choice": ["unet", "backbone_unet"]},
            DEPTH: {"int": [2, 3], "when": {"model.kind": ["unet"]}},
            "model.encoder": {"choice": ["resnet34", "mit_b0"], "when": {"model.kind": ["backbone_unet"]}},
        }
        assert points(conditional) == [("model.kind", "backbone_unet"), (DEPTH, 2)]
        with pytest.raises(SpaceError, match=r"searched only where `model\.kind` is 'backbone_unet'"):
            points(conditional, over=("model.encoder",))

    @pytest.mark.parametrize(
        ("over", "values", "problem"),
        [
            (("model.dept",), 3, "--over model.dept: is not searched; did you mean `model.depth`?"),
            (("data.batch_size",), 3, "--over data.batch_size: is not searched; searched are"),
            ((), 1, "--sweep 1: a range takes 2 to 1000 values"),
        ],
    )  # fmt: skip
    def test_of_what_is_not_searched_are_refused(
        self, over: tuple[str, ...], values: int, problem: str
    ) -> None:
        with pytest.raises(SpaceError) as caught:
            points(SPACE, values=values, over=over)
        assert problem in str(caught.value)

    def test_are_told_with_their_number(self) -> None:
        _, note = plan_sweep(load(SPACE), values=3, over=(DEPTH, LR), content=CONTENT, taken=())
        assert note == f"sweep: 4 trials, one parameter at a time, each run to its end: {DEPTH} 2, {LR} 2"


def request(folder: Path, **more: Any) -> Request:
    """A search of the space in `folder` on its images."""
    plain: dict[str, Any] = {
        "space": str(folder / "mine.yaml"), "data": (f"synthetic:{folder / 'images'}",),
        "storage": folder / "studies", "trials": None, "name": None, "profile": "none", "fixed": {},
        "seed": 0, "begin": "new", "extend": 0,
    }  # fmt: skip
    return Request(**plain | more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        SyntheticSpec(train=1, val=1, test=1, height=32, width=32, crack_width=(1.5, 4)), tmp_path / "images"
    )
    (tmp_path / "mine.yaml").write_text(text(SPACE, trials=7, scheduler={"kind": "asha"}), encoding="utf-8")
    return tmp_path


def begin(folder: Path, plan: Plan, space: LoadedSpace) -> StudySearch:
    """A process's part of the study, as `fissura search` begins it."""
    study = Study(folder / "studies" / plan.name)
    study.write(plan)
    return StudySearch(
        space,
        storage=study.storage(),
        study_name=plan.name,
        seed=plan.seed,
        content=plan.content,
        context={},
        stop_requested=lambda: False,
        sweep=plan.swept,
    )


def ask(search: StudySearch, count: int) -> list[dict[str, Any]]:
    """Suggestions, one at a time, each trained to its end."""
    suggested = []
    for _ in range(count):
        name = str(len(search._storage_ids))
        suggested.append(search.suggest(name))
        values = dict.fromkeys(search.metrics, 0.5)
        search.on_trial_complete(
            name, {"epoch": 1, "finished": True, "interrupted": False, "failure": "", **values}
        )
    return suggested


def plan_of(folder: Path, **more: Any) -> tuple[Plan, LoadedSpace]:
    _, plan, space = make_plan(request(folder, **more), folder / "cache", profile="cpu")
    return plan, space


class TestPlanning:
    def test_a_new_study_has_the_papers_trial_and_the_sweeps(self, folder: Path) -> None:
        plan, space = plan_of(folder, sweep=3)
        assert plan.trials == 1 + 6
        assert Plan.load(plan.plain(), source="test") == plan
        assert any(note.startswith("sweep: 6 trials") for note in space.notes)
        (line,) = plan.command(Path("/studies/it")).splitlines()
        assert "--sweep 3 --seed 0" in line
        assert "--trials" not in line

    @pytest.mark.parametrize(
        ("asked", "problem"),
        [
            ({"sweep": 3, "trials": 9}, "--trials 9: the number of trials follows from --sweep"),
            ({"over": (DEPTH,)}, "--over model.depth: says what --sweep varies; give --sweep N too"),
            ({"sweep": 3, "fixed": {LR: 0.01, WIDTH: 8, DEPTH: 3}}, "--sweep 3: no parameter of"),
        ],
    )
    def test_refuses_what_cannot_go_together(self, folder: Path, asked: dict[str, Any], problem: str) -> None:
        with pytest.raises(SpaceError) as caught:
            plan_of(folder, **asked)
        assert problem in str(caught.value)
        assert not (folder / "studies").exists()

    def test_a_study_that_is_resumed_gets_the_trials_that_it_lacks(self, folder: Path) -> None:
        plan, space = plan_of(folder)
        ask(begin(folder, plan, space), 2)
        more, space = plan_of(folder, begin="resume", sweep=3, over=(DEPTH,))
        assert more.trials == plan.trials + 2
        begin(folder, more, space)
        finer, space = plan_of(folder, begin="resume", sweep=3)
        assert finer.trials == more.trials + 4, "the depths are planned already"
        begin(folder, finer, space)
        same, space = plan_of(folder, begin="resume", sweep=3, extend=1)
        assert (same.trials, same.sweeps) == (finer.trials + 1, finer.sweeps)
        assert space.notes[-1] == "sweep: adds no trial: the study has each of its points"
        lines = same.command(Path("/studies/it")).splitlines()
        assert "--trials 8" in lines[0]
        again = "--storage /studies --name mine-again --resume"
        assert lines[1:] == [
            f"fissura search /studies/it/space.yaml {again} --sweep 3 --over {DEPTH}",
            f"fissura search /studies/it/space.yaml {again} --sweep 3",
        ]

    def test_a_configuration_that_was_stopped_early_is_trained_again_to_its_end(self, folder: Path) -> None:
        plan, space = plan_of(folder)
        search = begin(folder, plan, space)
        ask(search, 1)
        search.study.enqueue_trial(space.completed({DEPTH: 2}))
        stopped = search.suggest("stopped")
        search.on_trial_complete("stopped", {"epoch": 1, "val/f1": 0.1, "finished": False})
        assert search.study.trials[1].state == TrialState.PRUNED

        more, space = plan_of(folder, begin="resume", sweep=2, over=(DEPTH,))
        search = begin(folder, more, space)
        again = search.suggest("again")

        assert (again["run_id"], again["to_end"]) == (stopped["run_id"], True)
        state = folder / "studies" / "mine" / "runs" / again["run_id"] / "state.safetensors"
        state.parent.mkdir(parents=True)
        state.touch()
        drop_checkpoints(Study(folder / "studies" / "mine"), search.study)
        assert state.exists(), "it is the running trial's"


class TestRunning:
    def test_trains_the_paper_first_and_then_each_point_until_they_are_used_up(self, folder: Path) -> None:
        plan, space = plan_of(folder, sweep=3)
        search = begin(folder, plan, space)
        suggested = ask(search, plan.trials)

        trials = search.study.trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 7
        assert trials[0].user_attrs[PAPER]
        assert [(t.user_attrs[SWEPT], t.params[t.user_attrs[SWEPT]]) for t in trials[1:]] == list(plan.swept)
        for trial, suggestion in zip(trials[1:], suggested[1:], strict=True):
            changed = {name for name in trial.params if trial.params[name] != trials[0].params[name]}
            assert changed == {trial.user_attrs[SWEPT]}
            assert suggestion["run_id"] == trial.user_attrs[RUN]
        assert len({one["run_id"] for one in suggested}) == 7
        assert len(finished(search.study)) == plan.trials

    def test_goes_on_after_a_kill_without_a_point_twice(self, folder: Path) -> None:
        plan, space = plan_of(folder, sweep=3)
        first = begin(folder, plan, space)
        ask(first, 2)
        open_trial = first.suggest("left open")

        second = begin(folder, *plan_of(folder, begin="resume"))
        suggested = ask(second, plan.trials - 2)

        assert suggested[0]["number"] == open_trial["number"]
        assert [trial.state for trial in second.study.trials] == [TrialState.COMPLETE] * 7
        assert len({trial.user_attrs[RUN] for trial in second.study.trials}) == 7

    def test_completes_what_a_kill_left_unplanned_in_the_database(self, folder: Path) -> None:
        plan, space = plan_of(folder, sweep=3)
        begin(folder, plan.model_copy(update={"sweeps": ()}), space)
        again = begin(folder, plan, space)
        waiting = [trial for trial in again.study.trials if SWEPT in trial.user_attrs]
        assert [trial.state for trial in waiting] == [TrialState.WAITING] * 6

    def test_comes_before_what_the_sampler_adds(self, folder: Path) -> None:
        plan, space = plan_of(folder)
        ask(begin(folder, plan, space), plan.trials)
        more = begin(folder, *plan_of(folder, begin="resume", sweep=2, over=(LR,), extend=1))
        suggested = ask(more, 3)
        assert [SWEPT in trial.user_attrs for trial in more.study.trials[-3:]] == [True, True, False]
        assert [one["to_end"] for one in suggested] == [True, True, False]
        assert best_trials(more.study)

    @pytest.mark.parametrize("kind", ["asha", "median"])
    def test_is_never_stopped_early(self, kind: str) -> None:
        space = load(SPACE, scheduler={"kind": kind, "grace": 1})
        scheduler = scheduler_for(space, epochs=9, earlier=[])
        for number, value in enumerate((0.9, 0.8, 0.9, 0.7)):
            known = Trial("fissura", config={"number": number, "to_end": False}, stub=True)
            scheduler.on_trial_add(None, known)
            record = scheduler.on_trial_result if kind == "asha" else scheduler.on_trial_complete
            for epoch in (1, 2, 3):
                record(None, known, {"epoch": epoch, "val/f1": value, "training_iteration": epoch})

        def decide(epochs: Sequence[int], *, to_end: bool) -> list[str]:
            trial = Trial("fissura", config={"number": 9, "to_end": to_end}, stub=True)
            scheduler.on_trial_add(None, trial)
            results = [{"epoch": epoch, "val/f1": 0.1, "training_iteration": epoch} for epoch in epochs]
            return [scheduler.on_trial_result(None, trial, result) for result in results]

        assert decide([1], to_end=False) == [TrialScheduler.STOP]
        assert decide([1, 2, 3], to_end=True) == [TrialScheduler.CONTINUE] * 3


class TestObjectivesOnRequest:
    def test_take_the_place_of_the_spaces_own_and_stop_no_trial_early(self, folder: Path) -> None:
        plan, space = plan_of(folder, objectives=("val/iou", "latency_ms", "parameters", "val/loss"))
        assert [(one.metric, one.mode) for one in space.objectives] == [
            ("val/iou", "max"), ("latency_ms", "min"), ("parameters", "min"), ("val/loss", "min"),
        ]  # fmt: skip
        assert space.definition.scheduler.kind == "none"
        assert any("asha compares trials by one objective, and there are 4" in note for note in space.notes)
        assert Plan.load(plan.plain(), source="test") == plan
        assert plan.command(Path("/studies/it")).endswith(
            "--objective val/iou --objective latency_ms --objective parameters --objective val/loss"
        )

    def test_of_one_metric_keep_the_scheduler(self, folder: Path) -> None:
        _, space = plan_of(folder, objectives=("val/loss",))
        assert [(one.metric, one.mode) for one in space.objectives] == [("val/loss", "min")]
        assert space.definition.scheduler.kind == "asha"

    @pytest.mark.parametrize(
        ("metrics", "problem"),
        [
            (("val/f", ), "--objective: 'val/f' is not known; did you mean `val/f1`?; known: `val/loss`, "),
            (("val/f", ), "did you mean `val/f1`?"),
            (("val/f1", "val/f1"), "--objective val/f1: is given twice; leave one out"),
        ],
    )  # fmt: skip
    def test_are_known_metrics_each_once(self, folder: Path, metrics: tuple[str, ...], problem: str) -> None:
        with pytest.raises(SpaceError) as caught:
            plan_of(folder, objectives=metrics)
        assert problem in str(caught.value)

    def test_stay_those_of_the_study(self, folder: Path) -> None:
        several = ("val/f1", "parameters")
        plan, space = plan_of(folder, objectives=several)
        search = begin(folder, plan, space)
        ask(search, 3)
        assert [direction.name for direction in search.study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert len(search.study.trials[0].values) == 2
        _, again = plan_of(folder, begin="resume")
        assert [one.metric for one in again.objectives] == list(several)
        plan_of(folder, begin="resume", objectives=several)
        with pytest.raises(SpaceError, match="--objective: the study was planned for val/f1, parameters"):
            plan_of(folder, begin="resume", objectives=("val/f1",))


def test_the_command_line_refuses_trials_beside_a_sweep(fissura: Callable[..., Any], folder: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    code, out, said = fissura(
        "search", folder / "mine.yaml", "--data", f"synthetic:{folder / 'images'}", "--storage",
        folder / "studies", "--cache", folder / "cache", "--sweep", 3, "--trials", 9,
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert said[-1].startswith("error: --trials 9: the number of trials follows from --sweep")
