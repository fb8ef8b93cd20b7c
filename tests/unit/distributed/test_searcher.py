"""Between Ray Tune and an Optuna study, without a cluster: what is suggested, and what the study is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule
from ray.tune.search import Searcher

from fissura.core.errors import ResourceError
from fissura.distributed.cluster import Resources
from fissura.distributed.preflight import Hardware, check_disk, plan_slots
from fissura.distributed.search.schedulers import StudyASHA, scheduler_for
from fissura.distributed.search.searcher import StudySearch
from fissura.records.study_ranking import finished
from fissura.records.trial_attributes import PAPER, REASON, RUN, SKIPPED
from fissura.segmentation.recipe import Recipe
from fissura.spaces.load import load_text
from fissura.spaces.space import LoadedSpace

LAPTOP = Resources(cpus=8, gpus=0, nodes=1, node_cpus=8, node_gpus=0)
CLUSTER = Resources(cpus=64, gpus=8, nodes=4, node_cpus=16, node_gpus=2)


def space(
    sampler: str = "{kind: tpe, startup: 2}", scheduler: str = "{kind: none}", extra: str = ""
) -> LoadedSpace:
    return load_text(
        "recipe: small_unet\n"
        "objective: {metric: val/f1, mode: max}\n"
        f"sampler: {sampler}\n"
        f"scheduler: {scheduler}\n"
        "space:\n"
        "  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-1], log: true}\n"
        f"  model.width: {{choice: [4, 8]}}\n{extra}",
        source="test.yaml",
    )


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., StudySearch]:
    """Begins a process's part of the study that lies in the test's folder."""

    def begin(
        loaded: LoadedSpace | None = None, *, seed: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> StudySearch:
        return StudySearch(
            loaded or space(),
            storage=optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db"),
            study_name="study",
            seed=seed,
            content="c" * 16,
            context={"study": str(tmp_path)},
            stop_requested=stop,
        )

    return begin


def result(epoch: int, value: float, **more: Any) -> dict[str, Any]:
    standing = {"finished": False, "interrupted": False, "failure": "", "done": False}
    return {"epoch": epoch, "val/f1": value, "training_iteration": epoch, **standing, **more}


def end(search: StudySearch, trial_id: str, value: float) -> None:
    search.on_trial_complete(trial_id, result(2, value, finished=True, done=True))


class TestSuggesting:
    def test_begins_with_the_papers_own_configuration(self, begin: Callable[..., StudySearch]) -> None:
        search = begin()
        suggested = search.suggest("a")
        recipe = Recipe.load(suggested["recipe"], source="test")
        assert recipe == search._loaded.recipe_for({})
        assert (suggested["number"], suggested["to_end"]) == (0, True)
        assert search.study.trials[0].user_attrs == {PAPER: True, RUN: suggested["run_id"]}

    def test_follows_from_the_seed(self, begin: Callable[..., StudySearch], tmp_path: Path) -> None:
        def configurations(seed: int) -> list[str]:
            (tmp_path / "study.db").unlink(missing_ok=True)
            search, runs = begin(seed=seed), []
            for index in range(6):
                runs.append(search.suggest(str(index))["run_id"])
                end(search, str(index), index / 10)
            return runs

        assert configurations(1) == configurations(1) != configurations(2)

    def test_never_repeats_a_configuration_and_ends_when_there_is_none_left(
        self, begin: Callable[..., StudySearch]
    ) -> None:
        loaded = load_text(
            "recipe: small_unet\nobjective: {metric: val/f1, mode: max}\n"
            "space:\n  model.width: {choice: [4, 8, 12]}\n  model.depth: {choice: [2, 3]}\n",
            source="test.yaml",
        )
        search, runs = begin(loaded), []
        for index in range(7):
            suggested = search.suggest(str(index))
            if suggested == Searcher.FINISHED:
                break
            runs.append(suggested["run_id"])
            end(search, str(index), 0.5)
        assert len(runs) == len(set(runs)) == 6
        assert suggested == Searcher.FINISHED
        assert len(finished(search.study)) == 6
        skipped = [trial for trial in search.study.trials if SKIPPED in trial.user_attrs]
        assert all(trial.state == TrialState.FAIL for trial in skipped)

    def test_stops_when_asked_to(self, begin: Callable[..., StudySearch]) -> None:
        assert begin(stop=lambda: True).suggest("a") == Searcher.FINISHED

    def test_skips_what_breaks_a_rule_of_the_recipe(self, begin: Callable[..., StudySearch]) -> None:
        loaded = space(
            extra="  phases.train.loss.dice_weight: {choice: [1.0, 0.0]}\n"
            "  phases.train.loss.bce_weight: {choice: [1.0, 0.0]}\n"
        )
        search = begin(loaded)
        for index in range(24):
            suggested = search.suggest(str(index))
            loss = suggested["recipe"]["phases"][0]["loss"]
            assert loss["dice_weight"] + loss["bce_weight"] > 0
            end(search, str(index), 0.5)
        broken = [trial.user_attrs[SKIPPED] for trial in search.study.trials if SKIPPED in trial.user_attrs]
        assert any("breaks a rule" in reason for reason in broken)


class TestTelling:
    def test_a_finished_trial_is_complete_with_its_value_and_its_epochs(
        self, begin: Callable[..., StudySearch]
    ) -> None:
        search = begin()
        search.suggest("a")
        search.on_trial_result("a", result(1, 0.25))
        search.on_trial_result("a", result(1, 0.3))
        end(search, "a", 0.5)
        (trial,) = search.study.trials
        assert (trial.state, trial.value, trial.intermediate_values) == (
            TrialState.COMPLETE,
            0.5,
            {1: 0.25, 2: 0.5},
        )

    def test_a_stopped_trial_is_pruned(self, begin: Callable[..., StudySearch]) -> None:
        search = begin()
        search.suggest("a")
        search.on_trial_result("a", result(1, 0.25))
        search.on_trial_complete("a", result(2, 0.5))
        (trial,) = search.study.trials
        assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.25, 2: 0.5})

    @pytest.mark.parametrize(
        ("last", "reason"),
        [
            (result(1, 0.5, failure="the training loss of step 1 is nan"), "step 1 is nan"),
            (result(1, float("nan"), finished=True), "is not a number"),
            ({"epoch": 1, "finished": True, "interrupted": False, "failure": ""}, "is not a number"),
        ],
        ids=["failure", "nan", "no metric"],
    )
    def test_a_failed_trial_has_its_reason(
        self, begin: Callable[..., StudySearch], last: dict[str, Any], reason: str
    ) -> None:
        search = begin()
        search.suggest("a")
        search.on_trial_complete("a", last)
        (trial,) = search.study.trials
        assert trial.state == TrialState.FAIL
        assert reason in trial.user_attrs[REASON]

    def test_a_crashed_trial_waits_for_its_reason(self, begin: Callable[..., StudySearch]) -> None:
        search = begin()
        search.suggest("a")
        search.on_trial_complete("a", error=True)
        assert search.study.trials[0].state == TrialState.RUNNING
        search.fail("a", reason="the trial's process ended: killed")
        search.fail("a", reason="a second reason")
        assert search.study.trials[0].state == TrialState.FAIL
        assert search.study.trials[0].user_attrs[REASON] == "the trial's process ended: killed"

    @pytest.mark.parametrize("ending", [result(1, 0.5, interrupted=True, done=True), None])
    def test_ends_when_its_last_trial_was_interrupted(
        self, begin: Callable[..., StudySearch], ending: dict[str, Any] | None
    ) -> None:
        search = begin()
        search.allow(1)
        search.suggest("a")
        assert search.suggest("b") is None
        search.on_trial_complete("a", ending)
        assert search.suggest("b") == Searcher.FINISHED

    def test_lets_a_trial_that_was_given_back_go_on_under_its_own_number(
        self, begin: Callable[..., StudySearch]
    ) -> None:
        search = begin()
        search.allow(2)
        lost, other = search.suggest("a"), search.suggest("b")
        assert search.suggest("c") is None, "one of the two may still be given back"
        search.on_trial_complete("a", error=True)
        search.give_back("a")
        again = search.suggest("c")
        assert (again["number"], again["run_id"]) == (lost["number"], lost["run_id"])
        end(search, "b", 0.5)
        assert search.suggest("d") is None
        end(search, "c", 0.5)
        assert search.suggest("d") == Searcher.FINISHED
        assert [trial.state for trial in search.study.trials] == [TrialState.COMPLETE] * 2
        assert other["number"] == 1


class TestAnotherProcess:
    def test_is_told_of_the_epochs_that_a_killed_driver_did_not_hear_of(
        self, begin: Callable[..., StudySearch]
    ) -> None:
        begin().suggest("a")
        search = begin()
        search.suggest("a")
        own = [
            {"epoch": epoch, "val/f1": value, "kept_epoch": kept}
            for epoch, value, kept in ((1, 0.4, 1), (2, 0.3, 1), (3, 0.6, 3))
        ]
        search.on_trial_result("a", result(3, 0.6, own=own, kept_epoch=3))
        assert search.trial("a").intermediate_values == {1: 0.4, 2: 0.4, 3: 0.6}

    def test_goes_on_with_interrupted_trials_under_their_own_numbers(
        self, begin: Callable[..., StudySearch]
    ) -> None:
        first = begin()
        before = [first.suggest(name) for name in ("a", "b", "c")]
        first.on_trial_result("b", result(1, 0.25))
        end(first, "a", 0.5)
        first.on_trial_complete("b", result(1, 0.25, interrupted=True, done=True))

        second = begin()
        again = [second.suggest(name) for name in ("d", "e", "f")]

        assert [one["run_id"] for one in again[:2]] == [before[1]["run_id"], before[2]["run_id"]]
        assert [one["number"] for one in again] == [1, 2, 3]
        assert again[2]["run_id"] not in {one["run_id"] for one in before}
        assert second.study.trials[0].state == TrialState.COMPLETE

    def test_puts_the_values_of_earlier_trials_on_the_rungs(self, begin: Callable[..., StudySearch]) -> None:
        loaded = space(scheduler="{kind: asha, grace: 1, reduction: 2}")
        search = begin(loaded)
        for name, value in (("a", 0.8), ("b", 0.9), ("c", 0.7)):
            search.suggest(name)
            for epoch in (1, 2):
                search.on_trial_result(name, result(epoch, value))
            end(search, name, value)

        scheduler = scheduler_for(loaded, epochs=4, earlier=finished(search.study))
        weak = Trial("fissura", config={"number": 3, "to_end": False}, stub=True)
        strong = Trial("fissura", config={"number": 4, "to_end": False}, stub=True)
        papers = Trial("fissura", config={"number": 0, "to_end": True}, stub=True)
        for trial in (weak, strong, papers):
            scheduler.on_trial_add(None, trial)

        assert isinstance(scheduler, StudyASHA)
        assert scheduler.on_trial_result(None, weak, result(1, 0.1)) == "STOP"
        assert scheduler.on_trial_result(None, strong, result(1, 0.95)) == "CONTINUE"
        assert scheduler.on_trial_result(None, papers, result(1, 0.0)) == "CONTINUE"


def test_each_scheduler_of_a_space_has_its_own_of_ray() -> None:
    median = scheduler_for(space(scheduler="{kind: median, grace: 2}"), epochs=4, earlier=[])
    assert isinstance(median, MedianStoppingRule)
    assert isinstance(scheduler_for(space(), epochs=4, earlier=[]), FIFOScheduler)


@pytest.mark.parametrize("kind", ["none", "median", "asha"])
def test_the_next_trial_is_sought_among_those_that_have_not_ended(kind: str) -> None:
    class Controller:
        def __init__(self, *trials: Trial) -> None:
            self._trials = {*trials}

        def get_live_trials(self) -> set[Trial]:
            return self._trials

    def trial(number: int, status: str) -> Trial:
        made = Trial("fissura", config={"number": number}, stub=True)
        made.set_status(status)
        return made

    scheduler = scheduler_for(space(scheduler=f"{{kind: {kind}}}"), epochs=4, earlier=[])
    running, paused = trial(1, Trial.RUNNING), trial(2, Trial.PAUSED)
    third, fourth = trial(3, Trial.PENDING), trial(4, Trial.PENDING)
    assert scheduler.choose_trial_to_run(Controller(running, paused, fourth, third)) is third
    assert scheduler.choose_trial_to_run(Controller(running, paused)) is paused
    assert scheduler.choose_trial_to_run(Controller(running)) is None


class TestSharingACluster:
    def test_leaves_nothing_idle(self) -> None:
        slots = plan_slots(LAPTOP, Hardware(), trials=20)
        assert slots.concurrent * slots.cpus == 8
        assert slots.gpus == 0
        slots = plan_slots(CLUSTER, Hardware(), trials=20)
        assert (slots.concurrent, slots.cpus, slots.gpus) == (8, 8, 1)
        assert plan_slots(CLUSTER, Hardware(gpus_per_trial=0.5), trials=20).concurrent == 16
        assert plan_slots(LAPTOP, Hardware(), trials=1).cpus == 8

    @pytest.mark.parametrize(
        ("hardware", "said"),
        [
            (Hardware(cpus_per_trial=9), "the largest has 8 CPUs"),
            (Hardware(gpus_per_trial=1), "the most that one has is 0 GPUs"),
            (Hardware(concurrent=5, cpus_per_trial=2), "ask for 4 or fewer"),
        ],
    )
    def test_refuses_what_does_not_fit_and_says_what_would(self, hardware: Hardware, said: str) -> None:
        with pytest.raises(ResourceError, match=said):
            plan_slots(LAPTOP, hardware, trials=20)

    def test_refuses_checkpoints_that_do_not_fit_the_disk(self, tmp_path: Path) -> None:
        recipe = space().recipe_for({})
        slots = plan_slots(LAPTOP, Hardware(), trials=20)
        check_disk(recipe, storage=tmp_path / "new" / "folder", slots=slots)
        endless = slots.__class__(concurrent=10**9, cpus=1, gpus=0)
        with pytest.raises(ResourceError, match="lower --concurrency"):
            check_disk(recipe, storage=tmp_path, slots=endless)
