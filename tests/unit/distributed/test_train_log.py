"""A training by several workers tells each epoch that they log, and that none ends."""

from pathlib import Path
from threading import Event

import pytest

from fissura.core.progress import Reminders
from fissura.distributed.training import launch
from fissura.distributed.training.launch import told_of


def test_each_new_epoch_is_told_once_and_then_for_how_long_none_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, said, told = 0.0, list[str](), Event()
    monkeypatch.setattr(launch, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(launch, "Reminders", lambda: Reminders(lambda: now))

    def say(line: str) -> None:
        said.append(line)
        told.set()

    def await_line() -> None:
        assert told.wait(60)
        told.clear()

    log = tmp_path / "train.log"
    log.write_text("12:00 epoch 1: of an earlier attempt\n")
    with told_of(log, say):
        now = 16.0
        await_line()
        with log.open("a") as file:
            file.write("12:01 epoch 2: trained by 2 workers\n12:02 half a l")
        await_line()
        with log.open("a") as file:
            file.write("ine\n")
        await_line()
    assert said == [
        "the workers train: no epoch has ended for 16 s",
        "epoch 2: trained by 2 workers",
        "half a line",
    ]


def test_what_was_logged_last_is_told_at_the_end(tmp_path: Path) -> None:
    said: list[str] = []
    with told_of(tmp_path / "train.log", said.append):
        (tmp_path / "train.log").write_text("12:00 epoch 1: trained by 2 workers\n")
    assert said == ["epoch 1: trained by 2 workers"]
