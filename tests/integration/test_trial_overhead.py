"""The benchmark of a trial's overhead trains the same ten configurations in each of its ways."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.trial_overhead import IMAGES, RATES, WAYS

from fissura.data.synthetic import SyntheticSpec, write

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "trial_overhead.py"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_configuration_is_trained_once(way: str, tmp_path: Path) -> None:
    images, folder = tmp_path / "images", tmp_path / "folder"
    write(SyntheticSpec.model_validate(IMAGES), images)
    folder.mkdir()
    words = [sys.executable, SCRIPT, way, images, tmp_path / "cache", folder]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
    assert run.returncode == 0, run.stderr[-3000:]
    runs = [Path(run) for run, _ in json.loads((folder / "told.json").read_text())]
    rates = sorted(
        json.loads((run / "recipe.json").read_text())["phases"][0]["optimizer"]["lr"] for run in runs
    )
    assert rates == sorted(RATES)
