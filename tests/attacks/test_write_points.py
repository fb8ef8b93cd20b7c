"""A process that is killed in the very write of a file: what goes on from there comes to the same."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.attacks
SCRIPT = Path(__file__).with_name("write_points.py")
EVERY = int(os.environ.get("FISSURA_WRITE_STEP", "1000"))
"""Beside the first write of each kind; 1 tries each of them, which takes an hour."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("work", "least"), [("training", 50), ("segmenters", 250), ("classifiers", 250)])
def test_a_process_killed_at_any_write_is_gone_on_with_as_if_nothing_had_been(
    work: str, least: int, tmp_path: Path, measured: Callable[..., None]
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), work, str(tmp_path), str(EVERY)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-4000:]
    *tries, last = lines
    assert [each for each in tries if each["wrong"]] == []
    assert done.returncode == 0, done.stderr[-4000:]
    assert last["points"] >= least
    measured(f"killed in a write, {work}", write_points=last["points"], tried=last["tried"])
