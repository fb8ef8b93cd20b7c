"""A search says what it waits for until its first epoch or setting begins."""

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from fissura.core.progress import Reminders
from fissura.distributed.search import status_line as module
from fissura.distributed.search.status_line import StatusLine


def test_reminders_come_at_rising_intervals() -> None:
    now = 0.0
    reminders, at = Reminders(lambda: now), list[float]()
    while len(at) < 5:
        now += 1.0
        at += [waited] if (waited := reminders.due()) else []
    assert at == [15, 45, 105, 165, 225]


@pytest.mark.parametrize("unit", ["epochs", "settings"])
def test_a_quick_start_is_one_line(unit: str) -> None:
    said: list[str] = []
    standing = status_line(said, unit)
    with standing.starting():
        (line,) = said
        assert line == f"waiting for the first of the {unit}: Ray's workers start, and load code and data"
        standing.gauges.epoch(0, value=0.5, seconds=1.0, wait_share=0.0)
    assert said == [line]


def test_a_long_start_is_told_of_until_the_first_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a trial has begun, no worker starts any more."""
    now, looked = 0.0, Event()
    said: list[str] = []

    def clock() -> float:
        looked.set()
        return now

    def let_look() -> None:
        for _ in range(2):  # one look may have begun before
            looked.clear()
            assert looked.wait(60)

    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(module, "Reminders", lambda: Reminders(clock))
    standing = status_line(said, "epochs")
    with standing.starting():
        now = 15.0
        let_look()
        standing.begun()
        now = 45.0
        let_look()
        standing.gauges.epoch(0, value=0.5, seconds=1.0, wait_share=0.0)
        now = 200.0
    assert said[1:] == [
        "still waiting, for 15 s now, for the first of the epochs: Ray's workers start, and load code and"
        " data",
        "still waiting, for 45 s now, for the first of the epochs: it is being computed",
    ]


def status_line(said: list[str], unit: str) -> StatusLine:
    search: Any = SimpleNamespace(study=SimpleNamespace(study_name="s"), metrics=("val/f1",))
    return StatusLine(search, total=1, unit=unit, say=said.append)
