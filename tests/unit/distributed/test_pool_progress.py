"""A pool of workers tells what is done when that changes, and at rising intervals while it does not."""

from types import SimpleNamespace
from typing import Any

import pytest

from fissura.distributed import pool as module
from fissura.distributed.pool import Pool


def test_a_line_is_told_once_and_then_with_the_time_for_which_it_has_stood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, said, ends = 0.0, list[str](), iter((100.0, 104.0))
    following = next(ends)

    def wait(tasks: list[str], *, timeout: float) -> tuple[list[str], list[str]]:
        """Half a second passes; the first chunk ends after 100 s, the other after 104 s."""
        nonlocal now, following
        now += timeout
        if now < following:
            return [], tasks
        following = next(ends, 0.0)
        return tasks[:1], tasks[1:]

    outcome = {"reasons": {}, "problems": []}
    ray = SimpleNamespace(wait=wait, get=lambda _: outcome, kill=lambda _: None)
    monkeypatch.setattr(module, "ray", ray)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    started = iter("ab")
    actor: Any = SimpleNamespace(work=SimpleNamespace(remote=lambda *_: next(started)))
    with Pool(lambda: actor, size=1) as pool:
        items = [{"key": str(number)} for number in range(28)]
        assert pool.run(items, least=16, say=said.append) == {}
    assert said == ["0/28, for 15 s now", "0/28, for 45 s now", "16/28"]
