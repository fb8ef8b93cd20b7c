"""What a drill calls passed, and what it refuses before anything is begun."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fissura.core.errors import SpecError
from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.owned_processes import Marked
from fissura.operations.drill.run import check_faults, course, fresh_folder
from fissura.operations.drill.sandbox import Ground, Stuck
from fissura.operations.drill.scenario import finding
from fissura.operations.drill.work import (
    ALL_WORK,
    DrillTraining,
    SegmentationSearch,
    State,
    epochs_lost,
    gone_on,
)

GOOD = FaultCost("worker", "search", seconds=3.0, epochs_lost=1, trials_lost=0, trials_repeated=0,
               resources_seconds=0.5)  # fmt: skip
NOON, LATER = "2026-01-01 12:00:00.000000", "2026-01-01 13:00:00.000000"


class TestAFinding:
    def test_has_passed_where_the_work_went_on_and_lost_no_more_than_an_epoch(self) -> None:
        assert GOOD.passed
        assert replace(GOOD, epochs_lost=None, trials_lost=None).passed, "what does not apply is no loss"

    @pytest.mark.parametrize(
        "change",
        [
            {"seconds": None},
            {"epochs_lost": 2},
            {"trials_lost": 1},
            {"trials_repeated": 1},
            {"resources_seconds": None},
            {"problems": ("trial 1 failed: the trial's process ended",)},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_has_not_passed_otherwise(self, change: dict[str, Any]) -> None:
        assert not replace(GOOD, **change).passed

    def test_tells_as_json_whether_it_has_passed(self) -> None:
        assert GOOD.plain()["passed"] is True
        assert replace(GOOD, problems=("no",)).plain()["problems"] == ["no"]


class TestEpochsLost:
    @pytest.mark.parametrize(
        ("told", "lost"),
        [((1, 2, 3, 4), 1), ((1, 2, 3, 3, 4), 2), ((1, 2, 3, 4, 1, 2), 5), ((1, 2, 4), 1)],
        ids=["in flight", "one told of twice", "from the beginning", "finished but not told of"],
    )
    def test_are_those_told_of_twice_and_the_one_in_flight(self, told: tuple[int, ...], lost: int) -> None:
        assert epochs_lost(State({"0": (1, 2), "1": told})) == lost

    def test_do_not_apply_to_work_without_epochs(self) -> None:
        assert epochs_lost(State({})) is None


class TestCounting:
    def count(self, before: State, after: State) -> FaultCost:
        return finding(
            "driver", SegmentationSearch(), before=before, after=after, seconds=1.0, resources_seconds=1.0
        )

    def test_a_trial_that_is_as_it_was_is_neither_lost_nor_repeated(self) -> None:
        found = self.count(State({}, {0: NOON}), State({}, {0: NOON, 1: LATER}))
        assert (found.trials_lost, found.trials_repeated, found.passed) == (0, 0, True)

    def test_a_trial_that_ended_again_was_repeated(self) -> None:
        assert self.count(State({}, {0: NOON}), State({}, {0: LATER})).trials_repeated == 1

    def test_a_configuration_under_two_numbers_was_repeated(self) -> None:
        assert self.count(State({}, {0: NOON}), State({}, {0: NOON, 1: NOON}, doubled=1)).trials_repeated == 1

    def test_a_trial_that_is_gone_was_lost(self) -> None:
        assert self.count(State({}, {0: NOON, 1: NOON}), State({}, {1: NOON})).trials_lost == 1

    def test_a_failed_trial_is_a_problem(self) -> None:
        found = self.count(State({}), State({}, {0: NOON}, {0: "out of memory"}))
        assert found.problems == ("trial 0 failed: out of memory",)


class TestGoingOn:
    def test_takes_an_epoch_of_each_training_that_was_under_way(self) -> None:
        before = State({"0": (1, 2), "1": (1,)})
        assert not gone_on(before, State({"0": (1, 2, 3), "1": (1,)}))
        assert gone_on(before, State({"0": (1, 2, 3), "1": (1, 2)}))
        assert gone_on(before, State({"0": (1, 2, 3), "1": (1,)}, {1: NOON})), "one that ended needs no more"

    def test_takes_a_trial_where_there_are_no_epochs(self) -> None:
        assert not gone_on(State({}, {0: NOON}), State({}, {0: NOON}))
        assert gone_on(State({}, {0: NOON}), State({}, {0: NOON, 1: NOON}))


def test_mistakes_are_told_all_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        check_faults(["wroker", "node"], nodes=[], address=None)
    assert len(raised.value.problems) == 2
    assert "worker, driver, head, node" in raised.value.problems[0]
    assert "--node NODE_ID" in raised.value.problems[1]
    with pytest.raises(SpecError, match="for --faults node alone"):
        check_faults(["worker"], nodes=["abc"], address="auto")
    with pytest.raises(SpecError, match="would end a whole cluster"):
        check_faults(["head"], nodes=[], address="auto")


def test_the_command_refuses_them_and_leaves_nothing(fissura: Callable[..., Any], tmp_path: Path) -> None:
    outcome = fissura("drill", "--faults", "node", "--storage", tmp_path / "storage")
    assert outcome.code == 2
    assert "ends a node of the cluster for good" in outcome.said[0]
    assert not (tmp_path / "storage").exists()


def test_a_driver_that_fails_is_a_finding_with_its_last_words(tmp_path: Path) -> None:
    class Misspelt(DrillTraining):
        def begin(self, folder: Path) -> list[str]:
            return ["trian"]

    class Begun:
        name = "worker"

        def run(self, ground: Ground, work: DrillTraining) -> FaultCost:
            with ground.started(work.begin(ground.folder)) as driver:
                driver.finish()
            raise AssertionError

    found = course(Begun(), Misspelt(), Ground(tmp_path, "127.0.0.1:1", Marked()))
    assert not found.passed
    assert "no such command 'trian'" in found.problems[0]


def test_a_drills_folder_is_fresh_and_removed_even_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with fresh_folder(tmp_path / "storage") as folder:
            (folder / "1").mkdir()
            raise Stuck("no")

    with pytest.raises(Stuck):
        fail()
    assert list((tmp_path / "storage").iterdir()) == []


def test_the_works_are_of_both_tasks_and_over_workers() -> None:
    assert [work.name for work in ALL_WORK] == ["search", "classifiers", "training"]
