"""What `fissura plan` says of real searches, beside what they then took.

One search is planned from a measurement (`--measure`), and run. The others are planned from its study
(`--study`), with other numbers of trials, trials at a time and scheduler, and run. Each is planned once more
from its own study: what is left is then the simulation's error, not that of an epoch's time, which on a
shared machine changes from minute to minute. Seconds are those from the first trial's start to the last
one's end; what a plan takes for the start of Ray and for the results at the end is left out.

Run: python benchmarks/forecast.py [--out FILE]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "forecast.json"
IMAGES = {"train": 32, "val": 8, "test": 4, "height": 96, "width": 96}
SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
sampler: {kind: tpe, startup: 5}
scheduler: SCHEDULER
space:
  model.width: {int: [4, 12], step: 4}
  model.depth: {int: [2, 4]}
  phases.train.optimizer.lr: {float: [3.0e-4, 3.0e-2], log: true}
  phases.train.loss.dice_weight: {float: [0.1, 10.0], log: true}
"""
SETTINGS = ("--set", "epochs=8", "--set", "data.crop.per_image=2", "--set", "data.crop.size=64")
ASHA = "{kind: asha, grace: 1, reduction: 2}"


@dataclass(frozen=True)
class Search:
    name: str
    trials: int
    concurrent: int
    scheduler: str = ASHA

    def words(self, folder: Path) -> list[str]:
        space = folder / f"{self.name}.yaml"
        space.write_text(SPACE.replace("SCHEDULER", self.scheduler), encoding="utf-8")
        slots = ("--concurrency", str(self.concurrent), "--cpus-per-trial", "1", "--gpus-per-trial", "0")
        return [str(space), "--trials", str(self.trials), *slots, "--cache", str(folder / "cache"), *SETTINGS]


SEARCHES = (
    Search("first", trials=14, concurrent=2),
    Search("one_at_a_time", trials=8, concurrent=1),
    Search("more_trials", trials=24, concurrent=2),
    Search("no_scheduler", trials=6, concurrent=2, scheduler="{kind: none}"),
)


def fissura(*words: str) -> dict[str, Any]:
    """A command's JSON document."""
    program = [sys.executable, "-c", "from fissura.cli import main; main()"]
    done = subprocess.run([*program, *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{words}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def planned(search: Search, folder: Path, *times: str) -> dict[str, Any]:
    from fissura.operations.forecast.simulation import Costs

    best = fissura("plan", *search.words(folder), "--repetitions", "300", *times)["best"]
    ends = Costs().begin + Costs().finish
    return {
        "seconds": {name: value - ends for name, value in best["seconds"].items()},
        "epochs": best["epochs"],
    }


def main() -> None:
    from fissura.core.files import write_json
    from fissura.data.synthetic import SyntheticSpec, write
    from fissura.records.study_ranking import finished
    from fissura.studies.study import Study

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="forecast-") as name:
        folder = Path(name)
        write(SyntheticSpec(**IMAGES), folder / "images")
        data = ("--data", f"synthetic:{folder / 'images'}")
        for search in SEARCHES:
            basis = (*data, "--measure", "5") if not rows else ("--study", str(folder / "studies" / "first"))
            before = planned(search, folder, *basis)
            load = os.getloadavg()[0]
            place = ("--storage", str(folder / "studies"), "--name", search.name)
            whole = fissura("search", *search.words(folder), *data, *place)["seconds"]
            study = Study(folder / "studies" / search.name)
            trials = finished(study.load())
            epochs = sum(len(trial.intermediate_values) for trial in trials)
            begins, ends = zip(*((one.datetime_start, one.datetime_complete) for one in trials), strict=True)
            took = (max(ends) - min(begins)).total_seconds()
            after = planned(search, folder, "--study", str(study.path))
            row = {"search": vars(search), "basis": basis[-2], "load_before": load, "planned": before}
            row |= {"took": {"seconds": took, "epochs": epochs, "whole_seconds": whole}}
            row |= {"planned_from_own_study": after}
            rows.append(row)
            print(
                f"{search.name:14} planned {before['seconds']['median']:.0f} s"
                f" ({before['seconds']['low']:.0f} to {before['seconds']['high']:.0f}),"
                f" {before['epochs']['median']:.0f} epochs"
                f" ({before['epochs']['low']:.0f} to {before['epochs']['high']:.0f}); took {took:.0f} s,"
                f" {epochs} epochs; from its own study {after['seconds']['median']:.0f} s,"
                f" {after['epochs']['median']:.0f} epochs; load {load:.1f}",
                flush=True,
            )
    libraries = {one: version(one) for one in ("ray", "torch", "optuna")} | {
        "python": platform.python_version()
    }
    write_json(options.out, {"cpus": os.cpu_count(), "libraries": libraries, "searches": rows})


if __name__ == "__main__":
    main()
