"""A search says what it waits for until its first epoch or setting begins."""

from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from fissura.core.progress import Say
from fissura.distributed.search.status_line import StatusLine, remind


def test_a_long_start_is_told_of_at_rising_intervals_until_it_ends() -> None:
    said: list[str] = []
    waited: list[float] = []

    def begins(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) == 8

    remind(said.append, lambda: "the workers", begins=begins, clock=lambda: sum(waited))
    assert waited == [15, 30, 60, 60, 60, 60, 60, 60]
    assert said[0] == "still waiting, for 15 s now, for the workers"
    assert said[-1] == "still waiting, for 5 min 45 s now, for the workers"
    assert len(said) == 7


@pytest.mark.parametrize("unit", ["epochs", "settings"])
def test_a_quick_start_is_one_line(unit: str) -> None:
    said: list[str] = []
    standing = status_line(said, unit)
    with standing.starting():
        (line,) = said
        assert line == f"waiting for the first of the {unit}: Ray's workers start, and load code and data"
        standing.gauges.epoch(0, value=0.5, seconds=1.0, wait_share=0.0)
    assert said == [line]


def test_a_trial_that_has_begun_is_told_of_until_its_first_epoch_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And by then no worker starts any more."""
    said: list[str] = []
    told = Event()
    standing = status_line(said, "epochs")

    def say_on(say: Say, waited_for: Callable[[], str], *, begins: Callable[[float], bool]) -> None:
        standing.begun()
        assert not begins(0.0), "a trial that begins has no epoch yet"
        say(waited_for())
        standing.gauges.epoch(0, value=0.5, seconds=1.0, wait_share=0.0)
        assert begins(0.0)
        told.set()

    monkeypatch.setattr("fissura.distributed.search.status_line.remind", say_on)
    with standing.starting():
        assert told.wait(60)
    assert said[1:] == ["the first of the epochs: it is being computed"]


def status_line(said: list[str], unit: str) -> StatusLine:
    search: Any = SimpleNamespace(study=SimpleNamespace(study_name="s"), metrics=("val/f1",))
    return StatusLine(search, total=1, unit=unit, say=said.append)
