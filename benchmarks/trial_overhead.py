"""What a trial costs beside its training: an in-process Optuna loop, bare Ray Tune, and `fissura.search`.

All three train the same configurations of one small recipe on the same prepared images, with the same
trainer, one trial at a time on one CPU. They take turns, each in a process of its own, so that a drift of the
machine shows. A trial's overhead is the time from the end of the trial before (as Optuna was told it) to its
own, less the seconds that its trainer counted inside its epochs: the network's construction and the writing
of checkpoints count, for all three. That of a process's first trial holds the start of the process; it is
given apart.

Run: python benchmarks/trial_overhead.py [repetitions]
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

    from fissura.segmentation.recipe import Recipe

RATE, OBJECTIVE = "phases.train.optimizer.lr", "val/f1"
RATES = (3e-4, 5e-4, 8e-4, 1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 8e-3, 1e-2)
FIXED = {"model.width": 4, "data.crop.size": 32, "epochs": 2}
IMAGES = {"train": 16, "val": 4, "test": 4, "height": 64, "width": 64}
SPACE = f"""
recipe: small_unet
objective: {{metric: {OBJECTIVE}, mode: max}}
space:
  {RATE}: {{choice: {list(RATES)}}}
"""
MOST_SECONDS, LEAST_GAIN = 0.3, 10.0
RESULT = Path(__file__).parent / "results" / "trial_overhead.json"

Told = list[tuple[str, float]]  # each trial's run directory, and when Optuna was told its end


def train(
    rate: float, images: Path, cache: Path, run: Path, report: Callable[[dict[str, float]], Any]
) -> float:
    """One training, by the trainer that all three share; gives the last epoch's objective."""
    from fissura.data.cache import prepare
    from fissura.data.datasets import parse_datasets
    from fissura.segmentation.trainer import Trainer
    from fissura.training.runtime import LocalRuntime

    chosen = recipe(rate)
    data = prepare(parse_datasets([f"synthetic:{images}"]), resize=chosen.data.resize, directory=cache)
    trainer = Trainer(chosen, data=data, run=run, runtime=LocalRuntime(cpus=1))
    while not trainer.finished:
        value = float(trainer.step()[OBJECTIVE])
        report({OBJECTIVE: value})
    return value


def recipe(rate: float) -> "Recipe":
    """The recipe that all three train, with this learning rate."""
    from fissura.recipes import load_recipe
    from fissura.spaces.fields import override

    return override(load_recipe("small_unet"), {**FIXED, RATE: rate})


def optuna_loop(images: Path, cache: Path, folder: Path) -> Told:
    """A loop over an Optuna study in memory, in this process."""
    import optuna

    study = optuna.create_study(direction="maximize")
    for rate in RATES:
        study.enqueue_trial({RATE: rate})

    def objective(trial: "optuna.Trial") -> float:
        rate = trial.suggest_float(RATE, 1e-4, 1e-1, log=True)
        return train(rate, images, cache, folder / f"{rate:g}", lambda _: None)

    study.optimize(objective, n_trials=len(RATES))
    return told(study, lambda trial: folder / f"{trial.params[RATE]:g}")


def bare_tune(images: Path, cache: Path, folder: Path) -> Told:
    """Ray Tune as its documentation shows it: a training function, and OptunaSearch, in memory."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # as fissura does: an open Ray would run anyone's code
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    from fissura.distributed.environment import private_folder

    def trainable(config: dict[str, float]) -> None:
        train(config[RATE], images, cache, folder / f"{config[RATE]:g}", tune.report)

    search = OptunaSearch(
        {RATE: optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)},
        metric=OBJECTIVE,
        mode="max",
        points_to_evaluate=[{RATE: rate} for rate in RATES],
    )
    with private_folder() as private:
        ray.init(address="local", _temp_dir=str(private))
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=search, num_samples=len(RATES), max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(folder / "tune")),
        ).fit()
        ray.shutdown()
    return told(search._ot_study, lambda trial: folder / f"{trial.params[RATE]:g}")


def fissura_search(images: Path, cache: Path, folder: Path) -> Told:
    """`fissura.search`, which tries each of the configurations once."""
    import fissura
    from fissura.distributed.environment import prepare_environment
    from fissura.records.trial_attributes import RUN
    from fissura.studies.study import Study

    prepare_environment(None)
    from fissura.distributed.preflight import Hardware

    study, space = Study(folder / "study"), folder / "space.yaml"
    space.write_text(SPACE, encoding="utf-8")
    fissura.search(
        space,
        data=[f"synthetic:{images}"],
        storage=folder,
        name="study",
        trials=len(RATES),
        fixed=FIXED,
        hardware=Hardware(concurrent=1, cpus_per_trial=1),
        cache=cache,
        say=lambda line: print(f"{time.time():.2f} {line}", flush=True),
    )
    return told(study.load(), lambda trial: study.runs / trial.user_attrs[RUN])


def told(study: "optuna.Study", run: Callable[["optuna.trial.FrozenTrial"], Path]) -> Told:
    """The completed trials of a study, in the order of their ends."""
    ends = [
        (str(run(trial)), trial.datetime_complete.timestamp())
        for trial in study.trials
        if trial.datetime_complete and trial.state.name == "COMPLETE"
    ]
    return sorted(ends, key=lambda end: end[1])


WAYS: Mapping[str, Callable[[Path, Path, Path], Told]] = {
    "optuna": optuna_loop,
    "ray_tune": bare_tune,
    "fissura": fissura_search,
}


def measure(way: str, images: Path, cache: Path, folder: Path) -> dict[str, Any]:
    """Seconds of one process that runs all trials: overheads, trainings, from its start to its exit."""
    folder.mkdir()
    load, begin = os.getloadavg()[0], time.time()
    arguments = [str(path) for path in (images, cache, folder)]
    with (folder / "log").open("w") as log:
        child = subprocess.run(
            [sys.executable, __file__, way, *arguments], stdout=log, stderr=subprocess.STDOUT, check=False
        )
    end = time.time()
    ends: Told = json.loads((folder / "told.json").read_text()) if child.returncode == 0 else []
    if len(ends) < len(RATES):
        sys.exit(
            f"{way}: {len(ends)} of {len(RATES)} trials completed\n{(folder / 'log').read_text()[-3000:]}"
        )
    training = [trained(Path(run)) for run, _ in ends]
    times = [begin, *(told_at for _, told_at in ends)]
    overheads = [
        after - before - seconds for before, after, seconds in zip(times, times[1:], training, strict=False)
    ]
    return {
        "first": overheads[0],
        "overheads": overheads[1:],
        "training": training,
        "after_last": end - times[-1],
        "whole": end - begin,
        "load_before": load,
    }


def trained(run: Path) -> float:
    """The seconds that the trainer counted inside its epochs."""
    metrics = json.loads((run / "metrics.json").read_text())
    return float(metrics["progress"]["seconds"])


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median": median(seconds), "min": min(seconds), "max": max(seconds)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "overhead": spread([seconds for run in runs for seconds in run["overheads"]]),
        "training": spread([seconds for run in runs for seconds in run["training"]]),
        **{name: spread([run[name] for run in runs]) for name in ("first", "after_last", "whole")},
    }


def main(repetitions: int = 3) -> None:
    from fissura.core.files import write_json
    from fissura.data.cache import prepare
    from fissura.data.datasets import parse_datasets
    from fissura.data.synthetic import SyntheticSpec, write

    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="trial-overhead-") as name:
        scratch = Path(name)
        images, cache = scratch / "images", scratch / "cache"
        write(SyntheticSpec(**IMAGES), images)
        prepare(parse_datasets([f"synthetic:{images}"]), resize=recipe(RATES[0]).data.resize, directory=cache)
        print(f"{len(RATES)} trials each, one at a time; seconds")
        for repetition in range(repetitions):
            for way, done in runs.items():
                done.append(measure(way, images, cache, scratch / f"{way}-{repetition}"))
                last = done[-1]
                print(
                    f"{repetition + 1}. {way:9} overhead {median(last['overheads']):.3f} a trial, first"
                    f" {last['first']:.1f}, whole {last['whole']:.1f}, load before {last['load_before']:.1f}",
                    flush=True,
                )
    rows = {way: summary(done) for way, done in runs.items()}
    print(
        f"\n{'':10}{'overhead a trial':>27}{'first trial':>13}{'after the last':>16}{'whole':>8}"
        f"{'training':>10}"
    )
    for way, row in rows.items():
        overhead = row["overhead"]
        print(
            f"{way:10}{overhead['median']:9.3f} ({overhead['min']:.3f} to {overhead['max']:.3f})"
            f"{row['first']['median']:13.1f}{row['after_last']['median']:16.1f}{row['whole']['median']:8.1f}"
            f"{row['training']['median']:10.3f}"
        )
    ours, bare, least = (rows[way]["overhead"]["median"] for way in ("fissura", "ray_tune", "optuna"))
    print(f"\nfissura is {ours / bare:.3f} of bare Ray Tune, and {ours - least:.3f} s more than the loop")
    libraries = {name: version(name) for name in ("ray", "torch", "optuna")}
    write_json(
        RESULT,
        {
            "trials": len(RATES),
            "cpus": os.cpu_count(),
            "libraries": libraries,
            "fissura_to_ray_tune": ours / bare,
            "fissura_less_optuna_seconds": ours - least,
            "summary": rows,
            "runs": runs,
        },
    )
    if ours > MOST_SECONDS or ours * LEAST_GAIN > bare:
        sys.exit(
            f"above {MOST_SECONDS} s a trial, or above a {1 / LEAST_GAIN:g} of bare Ray Tune's {bare:.3f} s"
        )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        way, *paths = sys.argv[1:]
        ends = WAYS[way](*(Path(path) for path in paths))
        (Path(paths[-1]) / "told.json").write_text(json.dumps(ends))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
