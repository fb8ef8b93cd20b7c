"""When a trial counts as hung: no Ray is started here, and time is a number that the tests set."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from fissura.distributed.search import hang_watch as module
from fissura.distributed.search.hang_watch import EpochTimeout, HangWatch


class Watched:
    """A watch over trials `a` and `b`, a clock that is turned by hand, and what the watch did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, patience: EpochTimeout) -> None:
        self.now, self.failed, self.killed, self.waits = 0.0, {}, [], dict[int, str]()  # type: ignore[var-annotated]
        monkeypatch.setattr(module.ray, "kill", self.killed.append)
        search: Any = SimpleNamespace(
            number=lambda trial_id: "ab".index(trial_id),
            fail=lambda trial_id, reason: self.failed.update({trial_id: reason}),
        )
        self.watch = HangWatch(search, timeout=patience, waiting=lambda: self.waits, clock=lambda: self.now)
        self.trials: list[Any] = [
            SimpleNamespace(
                trial_id=name,
                status=Trial.RUNNING,
                max_failures=1,
                temporary_state=SimpleNamespace(ray_actor=f"actor of {name}"),
            )
            for name in "ab"
        ]
        for trial in self.trials:
            self.watch.on_trial_start(0, self.trials, trial)

    def epoch(self, trial: int, *, seconds: float) -> None:
        self.watch.on_trial_result(0, self.trials, self.trials[trial], {"time_this_iter_s": seconds})

    def turn(self, seconds: float) -> None:
        """Time passes, and Tune's loop turns each second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.watch.on_step_end(0, self.trials)


def test_the_limit_follows_the_longest_epoch_and_is_never_none() -> None:
    assert EpochTimeout().limit() == 4 * 3600
    assert EpochTimeout(longest=2).limit() == 600
    assert EpochTimeout(longest=120).limit() == 1200
    assert EpochTimeout(seconds=5, longest=120).limit() == 5


def test_a_trial_without_an_epoch_is_killed_once_and_not_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, EpochTimeout(seconds=30))
    watched.turn(20)
    watched.epoch(1, seconds=20)
    watched.turn(15)
    assert watched.killed == ["actor of a"]
    assert "hung: no epoch was finished within 30 s" in watched.failed["a"]
    assert watched.trials[0].max_failures == 0
    watched.turn(10)
    assert len(watched.killed) == 1
    assert "b" not in watched.failed


def test_a_trial_that_waits_for_its_storage_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, EpochTimeout(seconds=30))
    watched.waits[0] = "no space left"
    watched.turn(40)
    assert watched.killed == ["actor of b"]
    watched.waits.clear()
    watched.turn(40)
    assert watched.killed == ["actor of b", "actor of a"]


def test_a_driver_that_was_held_up_blames_no_trial_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, EpochTimeout(seconds=30))
    watched.turn(10)
    watched.now += 500
    watched.watch.on_step_end(0, watched.trials)
    watched.turn(10)
    assert watched.killed == []
