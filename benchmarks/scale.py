"""What a search costs beside its trainings as it grows: overhead a trial, suggest time, driver memory, nodes.

The trials do nothing, or wait: a trainable of a few lines stands in place of the training. The rest is the
product's own path: the study's SQLite database, its searcher with TPE, ASHA, Ray Tune with reused actors,
progress, log, the removal of checkpoints.

- `trials`: one process runs N no-op trials on one node; at several numbers of trials on the way it notes the
  seconds a trial since the mark before, the median time to suggest one, and the driver's memory.
- `suggest`: studies in memory that hold N trials; the CPU time to suggest the next one, by this project's
  bounded TPE and by Optuna's own.
- `nodes`: trials that wait for a fixed time, one at a time a simulated node (`ray.cluster_utils.Cluster`; a
  node counts with one CPU). Waiting needs no core, so 16 nodes fit a machine of two. Ideal is the waiting
  alone, shared out; efficiency is ideal by measured, the start of processes left out.
- `extrapolate`: searches of 100,000 trials on 1,000 nodes, simulated by `operations.forecast.simulation` with
  what the first part measured of the driver. Nothing of that size was run.

Run: python benchmarks/scale.py [--trials 10000] [--nodes 1 2 4 8 16] [--out FILE]
  [--only trials|suggest|nodes|extrapolate]
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent
RESULT = ROOT / "results" / "scale.json"
MARKS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
WAIT_SECONDS, WAITS_A_NODE = 2.0, 20
SUGGESTED = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
EPOCH_SECONDS = (1.0, 10.0, 60.0)
SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
sampler: {kind: tpe, startup: 10}
scheduler: SCHEDULER
space:
  model.width: {int: [4, 64], step: 4}
  model.depth: {int: [2, 5]}
  data.batch_size: {int: [2, 32]}
  phases.train.optimizer.lr: {float: [1.0e-5, 1.0e-1], log: true}
  phases.train.loss.dice_weight: {float: [0.01, 10.0], log: true}
  phases.train.loss.bce_weight: {float: [0.01, 10.0], log: true}
"""


def quality(recipe: dict[str, Any]) -> float:
    """A smooth value in [0, 1] with some noise, so that the sampler has something to learn."""
    import math

    optimizer = recipe["phases"][0]["optimizer"]
    noise = int(hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8], 16) / 2**32
    width = recipe["model"]["width"]
    return 1 / (1 + (math.log10(optimizer["lr"]) + 2.5) ** 2 + (width / 64 - 0.5) ** 2) - 0.05 * noise


def no_op(epochs: int, seconds: float) -> Any:
    """A trainable with TrialActor's promises that waits `seconds` an epoch."""
    from ray import tune

    class NoOp(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._epoch, self._quality = 0, quality(new_config["recipe"])
            return True

        def step(self) -> dict[str, Any]:
            begin = time.perf_counter()
            self._epoch += 1
            time.sleep(seconds)
            done = self._epoch >= epochs
            return {
                "epoch": self._epoch,
                "kept_epoch": self._epoch,
                "val/f1": self._quality * (1 - 0.5**self._epoch),
                "finished": done,
                "interrupted": False,
                "failure": "",
                "done": done,
                "wait_share": 0.0,
                "step_seconds": time.perf_counter() - begin,
            }

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            pass

        def load_checkpoint(self, checkpoint: Any) -> None:
            pass

    return NoOp


def measure(
    folder: Path, *, trials: int, nodes: int, concurrent: int, epochs: int, seconds: float, scheduler: str
) -> dict[str, Any]:
    """A search of `trials` trials in this process; what it cost, from mark to mark."""
    from fissura.distributed.environment import prepare_environment, private_folder

    prepare_environment(None)
    import optuna
    import ray
    from ray import tune
    from ray.cluster_utils import Cluster

    from fissura.distributed.search.schedulers import scheduler_for
    from fissura.distributed.search.search import run_trials
    from fissura.distributed.search.searcher import StudySearch
    from fissura.spaces.load import load_text
    from fissura.studies.study import Study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    began = time.monotonic()
    private = ExitStack()
    session = private.enter_context(private_folder())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": str(session)})
    for _ in range(nodes):
        cluster.add_node(num_cpus=-(-concurrent // nodes), num_gpus=0, object_store_memory=80 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster_seconds = time.monotonic() - began
    space = load_text(SPACE.replace("SCHEDULER", scheduler), source="scale.yaml")
    study = Study(folder / "study")
    study.path.mkdir(parents=True)
    (study.path / "runs").mkdir()

    suggested: list[tuple[float, float]] = []
    told: list[float] = []
    memory: list[int] = []
    cpu: list[float] = []

    class Timed(StudySearch):
        def suggest(self, trial_id: str) -> Any:
            begin, worked = time.perf_counter(), time.thread_time()
            found = super().suggest(trial_id)
            # between two trials the limiter of Tune is asked too, and answers at once
            if found is not None:
                suggested.append((time.perf_counter() - begin, time.thread_time() - worked))
            return found

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:  # noqa: FBT001, FBT002
            super().on_trial_complete(trial_id, result, error)
            told.append(time.monotonic())
            memory.append(rss())
            cpu.append(time.process_time())

    search = Timed(
        space,
        storage=study.storage(),
        study_name="study",
        seed=0,
        content="c" * 16,
        context={"study": str(study.path), "datasets": ["a data set"] * 3, "cpus": 1},
        stop_requested=lambda: False,
    )
    ready = time.monotonic()
    run_trials(
        tune.with_resources(no_op(epochs, seconds), {"cpu": 1}),
        search,
        study,
        todo=trials,
        scheduler=scheduler_for(space, epochs=epochs, earlier=[]),
        concurrent=concurrent,
        total=trials,
        say=lambda line: print(line, flush=True),
    )
    whole = time.monotonic() - ready
    ray.shutdown()
    cluster.shutdown()
    private.close()
    marks = [0, *(mark for mark in MARKS if mark < trials), trials]
    rows = []
    for before, mark in pairwise(marks):
        # the first trial holds the start of the actors
        first, last = max(before, 1) - 1, mark - 1
        recent = suggested[max(0, mark - 200) : mark]
        rows.append(
            {
                "trials": mark,
                "seconds_a_trial": (told[last] - told[first]) / (last - first),
                "cpu_ms_a_trial": 1000 * (cpu[last] - cpu[first]) / (last - first),
                "suggest_ms": 1000 * median(wall for wall, _ in recent),
                "suggest_cpu_ms": 1000 * median(worked for _, worked in recent),
                "memory_mb": memory[last] / 2**20,
            }
        )
    return {
        "trials": trials,
        "nodes": nodes,
        "concurrent": concurrent,
        "epochs": epochs,
        "wait_seconds": seconds,
        "scheduler": scheduler,
        "cluster_seconds": cluster_seconds,
        "first_trial_seconds": told[0] - ready,
        "seconds": whole,
        "steady_seconds": told[-1] - told[0],
        "rows": rows,
    }


def rss() -> int:
    """This process's memory, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def apart(**arguments: Any) -> dict[str, Any]:
    """`measure` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        place = Path(name) / "result.json"
        command = [sys.executable, __file__, "--measure", json.dumps(arguments), "--out", str(place)]
        log = Path(name) / "log"
        with log.open("w") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"{arguments}\n{log.read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(place.read_text())
        return found


def by_trials(trials: int) -> dict[str, Any]:
    """The part that goes through many trials."""
    found = apart(
        trials=trials,
        nodes=1,
        concurrent=4,
        epochs=1,
        seconds=0.0,
        scheduler="{kind: asha, grace: 1, reduction: 3}",
    )
    heads = ("seconds a trial", "CPU ms a trial", "suggest ms", "its CPU ms", "memory MB")
    print(f"{'trials':>8}" + "".join(f"{head:>17}" for head in heads))
    for row in found["rows"]:
        count, *values = row.values()
        print(f"{count:8}" + "".join(f"{value:17.3f}" for value in values), flush=True)
    return found


def by_suggestions() -> list[dict[str, Any]]:
    """The part that asks for one more trial of studies of several lengths."""
    import numpy as np
    import optuna

    from fissura.spaces.samplers.tpe import BoundedTPE

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spans = {f"x{number}": optuna.distributions.FloatDistribution(0, 1) for number in range(6)}
    rng, rows = np.random.default_rng(0), []
    for trials in SUGGESTED:
        row: dict[str, Any] = {"trials": trials}
        for name, sampler in (
            ("bounded", BoundedTPE(seed=0, startup=10)),
            ("optuna", optuna.samplers.TPESampler(seed=0)),
        ):
            study = optuna.create_study(sampler=sampler)
            points = rng.random((trials, len(spans)))
            for point in points:
                params = dict(zip(spans, map(float, point), strict=True))
                trial = optuna.trial.create_trial(params=params, distributions=spans, value=float(sum(point)))
                study.add_trial(trial)
            spent = []
            for _ in range(7):
                begin = time.thread_time()
                trial = study.ask(spans)
                spent.append(1000 * (time.thread_time() - begin))
                study.tell(trial, 3.0)
            # the first one looks at all trials once, as when a study is resumed
            row[f"{name}_ms"] = median(spent[1:])
            row[f"{name}_first_ms"] = spent[0]
        rows.append(row)
        print(
            f"{trials:8} trials: {row['bounded_ms']:7.1f} ms a suggestion, Optuna's {row['optuna_ms']:7.1f}",
            flush=True,
        )
    return rows


def by_nodes(counts: Sequence[int]) -> list[dict[str, Any]]:
    """The part that goes through several numbers of nodes."""
    found = []
    for nodes in counts:
        row = apart(
            trials=nodes * WAITS_A_NODE,
            nodes=nodes,
            concurrent=nodes,
            epochs=1,
            seconds=WAIT_SECONDS,
            scheduler="{kind: none}",
        )
        # the first trials wait for the start of the actors, so the ideal begins with the first end
        ideal = WAIT_SECONDS * (WAITS_A_NODE - 1)
        row |= {"ideal_seconds": ideal, "efficiency": ideal / row["steady_seconds"]}
        found.append(row)
        print(
            f"{nodes:3} nodes: up in {row['cluster_seconds']:.0f} s, {row['trials']} trials in"
            f" {row['steady_seconds']:.1f} s, ideal {ideal:.1f} s, efficiency {row['efficiency']:.2f}",
            flush=True,
        )
    return found


def extrapolate(trials: dict[str, Any]) -> dict[str, Any]:
    """A search of 100,000 trials on 1,000 nodes of one GPU, as simulated with the measured driver."""
    from fissura.operations.forecast.forecast import ForecastQuestion, Lanes, play
    from fissura.operations.forecast.learning_curves import Assumed
    from fissura.operations.forecast.simulation import Costs
    from fissura.spaces.space import Asha

    last, memory = trials["rows"][-1], [row["memory_mb"] for row in trials["rows"]]
    suggest = last["suggest_cpu_ms"] / 1000
    # of a trial of one epoch: what is not the suggestion is its result, and the rest of a trial
    other = max(0.0, last["cpu_ms_a_trial"] / 1000 - suggest)
    costs = Costs(node=180, suggest=suggest, trial=other / 2, result=other / 2)
    found: dict[str, Any] = {"costs": costs.plain(), "searches": []}
    spread = trials["rows"][-1]["trials"] - trials["rows"][0]["trials"]
    found["memory_mb"] = memory[-1] + (memory[-1] - memory[0]) / spread * (100_000 - last["trials"])
    for seconds in EPOCH_SECONDS:
        for studies in (1, 10):
            question = ForecastQuestion(
                trials=100_000 // studies,
                epochs=27,
                scheduler=Asha(grace=1, reduction=3),
                draw=Assumed((seconds * 0.5, seconds, seconds * 2), 27, startup=10).draw,
                nodes=1000 // studies,
                costs=costs,
                losses=0.01,
                spread=0.2,
            )
            played = play(question, Lanes(1000 // studies, 8, 1.0), repetition=0)
            row = {
                "epoch_seconds": seconds,
                "studies": studies,
                "hours": played.seconds / 3600,
                "driver_busy": played.driver / played.seconds,
                "suggesting": played.suggesting / played.seconds,
                "utilisation": played.training / played.seconds / question.nodes,
                "epochs": played.epochs * studies,
                "epochs_lost": played.epochs_lost * studies,
            }
            found["searches"].append(row)
            print(
                f"{seconds:4g} s an epoch, {studies:2} studies: {row['hours']:.2f} h, driver busy"
                f" {row['driver_busy']:.0%}, nodes used {row['utilisation']:.0%}",
                flush=True,
            )
    return found


def main() -> None:
    from fissura.core.files import write_json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--only", choices=["trials", "suggest", "nodes", "extrapolate"])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        with tempfile.TemporaryDirectory(prefix="scale-study-") as name:
            options.out.write_text(json.dumps(measure(Path(name), **json.loads(options.measure))))
        return
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    found["cpus"] = os.cpu_count()
    found["libraries"] = {name: version(name) for name in ("ray", "optuna", "sqlalchemy")}
    found["libraries"]["python"] = platform.python_version()
    load = os.getloadavg()[0]
    if options.only in (None, "trials"):
        found["trials"] = by_trials(options.trials) | {"load_before": load}
    if options.only in (None, "suggest"):
        found["suggest"] = by_suggestions()
    if options.only in (None, "nodes"):
        found["nodes"] = by_nodes(options.nodes)
    if options.only in (None, "extrapolate"):
        found["extrapolated"] = extrapolate(found["trials"])
    write_json(options.out, found)


if __name__ == "__main__":
    main()
