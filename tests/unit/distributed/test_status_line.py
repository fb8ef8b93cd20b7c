"""A search says what it waits for until its first epoch or setting begins."""

from types import SimpleNamespace

import pytest

from fissura.distributed.search.status_line import StatusLine, remind


def test_a_long_start_is_told_of_at_rising_intervals_until_it_ends() -> None:
    said: list[str] = []
    waited: list[float] = []

    def begins(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) == 8

    remind(said.append, "the workers", begins=begins, clock=lambda: sum(waited))
    assert waited == [15, 30, 60, 120, 240, 300, 300, 300]
    assert said[0] == "still waiting, for 15 s now, for the workers"
    assert said[-1] == "still waiting, for 17 min 45 s now, for the workers"
    assert len(said) == 7


@pytest.mark.parametrize("unit", ["epochs", "settings"])
def test_a_quick_start_is_one_line(unit: str) -> None:
    said: list[str] = []
    search = SimpleNamespace(study=SimpleNamespace(study_name="s"), metrics=("val/f1",))
    standing = StatusLine(search, total=1, unit=unit, say=said.append)
    with standing.starting():
        (line,) = said
        assert line == f"waiting for the first of the {unit}: Ray's workers start, and load code and data"
        standing.begun()
    assert said == [line]
