"""What `fissura plan` says beside what a real search took: the simulation with the search's own epoch times,
so that a machine that is busy now and idle then does not count against it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fissura.data.synthetic import SyntheticSpec, write
from fissura.operations.forecast.simulation import Costs
from fissura.records.study_ranking import finished
from fissura.studies.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MOST_OFF = 0.25
SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
sampler: {kind: tpe, startup: 4}
scheduler: SCHEDULER
space:
  model.width: {int: [4, 8], step: 4}
  phases.train.optimizer.lr: {float: [3.0e-4, 3.0e-2], log: true}
"""


def fissura(*words: object) -> dict[str, Any]:
    program = Path(sys.executable).with_name("fissura")
    ran = subprocess.run([program, *map(str, words), "--json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize(
    ("scheduler", "trials", "concurrent"),
    [("{kind: none}", 5, 2), ("{kind: asha, grace: 1, reduction: 2}", 12, 1)],
    ids=["none", "asha"],
)
def test_a_plan_is_what_the_search_took(scheduler: str, trials: int, concurrent: int, tmp_path: Path) -> None:
    write(SyntheticSpec(train=24, val=8, test=2, height=96, width=96), tmp_path / "images")
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("SCHEDULER", scheduler))
    words = [space, "--trials", trials, "--concurrency", concurrent, "--cpus-per-trial", 1]
    words += ["--gpus-per-trial", 0, "--set", "epochs=6", "--set", "data.crop.size=64"]
    data = ("--data", f"synthetic:{tmp_path / 'images'}", "--cache", tmp_path / "cache")
    fissura("search", *words, *data, "--storage", tmp_path / "studies")
    study = Study(tmp_path / "studies" / "space")
    done = finished(study.load())
    starts = [trial.datetime_start for trial in done if trial.datetime_start]
    ends = [trial.datetime_complete for trial in done if trial.datetime_complete]
    took = (max(ends) - min(starts)).total_seconds()
    epochs = sum(len(trial.intermediate_values) for trial in done)

    plan = fissura("plan", *words, "--study", study.path, "--repetitions", 200)["best"]
    planned = plan["seconds"]["median"] - Costs().begin - Costs().finish
    if "none" in scheduler:
        assert plan["epochs"]["low"] == plan["epochs"]["high"] == epochs == 30
        assert planned == pytest.approx(took, rel=MOST_OFF)
    else:
        # which trials ASHA stops is chance; what an epoch takes with all that is around it is not
        assert plan["epochs"]["low"] <= epochs <= plan["epochs"]["high"]
        assert planned / plan["epochs"]["median"] == pytest.approx(took / epochs, rel=MOST_OFF)
