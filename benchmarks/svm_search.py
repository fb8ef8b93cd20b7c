"""A search over C and gamma of an RBF SVM: the same configurations, folds and scores by six searches.

- fissura's `cross_validate` on one matrix of squared distances, in this process (a thread a CPU) and in Ray
  actors (one a CPU, the matrix in the object store);
- a loop over `SVC(kernel="precomputed")` in this process (a thread a CPU) on the same shared distances: what
  remains of the difference is the solver's;
- scikit-learn's `RandomizedSearchCV(n_jobs=-1)`, an Optuna study in this process (a thread a CPU) and bare
  Ray Tune (a function trainable, a trial a CPU), all over `UnitDistance` and `SVC`.

All work at one tolerance, and the score of each configuration, the mean F1 over five grouped and stratified
folds, is asserted equal. fissura's times hold everything after the features: distances, actors, batches. Ray
and joblib's workers run before the clock starts, so that some of the peers' configurations can stand for all;
and fissura's compiled code is loaded: compiling it the first time on a machine is measured apart.

Features are made here, as wide as asked: clusters of related samples (groups) in few latent directions,
through a random rectified layer, as a pooled network's. Or give a .npz of `features`, `labels` and `groups`.

With --peer-configurations N the peers that share no distances run N configurations, spread over the range,
and their times are extrapolated linearly to all; the result says so. Those that share them run all, in turn
in each repetition, so that a ratio is of one time of the machine.

Run: python benchmarks/svm_search.py [--widths 240 960 1920] [--peer-configurations N] [--features FILE.npz]
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.model_selection import RandomizedSearchCV, StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from fissura.classical.cross_validation import Folds, cross_validate, tour
from fissura.classical.distances import mean_squared_distances, squared_distances
from fissura.classical.scaling import UnitDistance
from fissura.core.files import write_json
from fissura.distributed.environment import private_folder

SAMPLES, FOLDS, CONFIGURATIONS, SEED = 2000, 5, 256, 0
BOUNDS, GAMMAS = (1e-2, 1e3), (1e-2, 1e1)
# the same for all sides: where decisions of both solvers fall on the same side of zero
TOLERANCE, EQUAL = 1e-6, 1e-6
BATCH = 16
TARGET, TARGET_WIDTH = 10.0, 960
RESULT = Path(__file__).parent / "results" / "svm_search.json"

Configurations = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Problem:
    """Features float32 [n, d], labels {0, 1} and folds [n], sorted so that folds and classes are runs."""

    features: np.ndarray
    labels: np.ndarray
    fold_of: np.ndarray

    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (np.flatnonzero(self.fold_of != fold), np.flatnonzero(self.fold_of == fold))
            for fold in range(FOLDS)
        ]

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """The mean F1 over the folds, for predictions [m, n]."""
        each = []
        for _, held in self.splits():
            hits = (predictions[:, held] & self.labels[held]).sum(axis=1)
            each.append(2 * hits / (predictions[:, held].sum(axis=1) + self.labels[held].sum()))
        return np.mean(each, axis=0)


def made(width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [SAMPLES, width], labels, groups."""
    rng = np.random.default_rng(SEED)
    latent, modes, groups = 24, 16, 400
    spread = np.exp(rng.normal(0, 0.5, latent)) / np.sqrt(1 + np.arange(latent))
    centres = rng.normal(0, 0.9, (modes, latent)) * spread
    mode, group = rng.integers(0, modes, groups), rng.integers(0, groups, SAMPLES)
    middle = centres[mode] + rng.normal(0, 0.5, (groups, latent)) * spread
    position = middle[group] + rng.normal(0, 1, (SAMPLES, latent)) * spread
    labels = (mode[group] % 2) ^ (rng.random(SAMPLES) < 0.02)
    layer = rng.normal(0, 1 / np.sqrt(latent), (latent, width))
    before = position @ layer + rng.normal(-0.3, 0.5, width) + rng.normal(0, 0.15, (SAMPLES, width))
    features = np.exp(rng.normal(0, 0.7, width)) * np.logaddexp(0, 4 * before) / 4
    return features.astype(np.float32), labels.astype(np.int64), group


def problem(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Problem:
    fold_of = np.empty(len(labels), dtype=np.int64)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    for fold, (_, held) in enumerate(folds.split(features, labels, groups)):
        fold_of[held] = fold
    order = Folds.of(labels=labels, fold_of=fold_of).order
    return Problem(np.ascontiguousarray(features[order]), labels[order], fold_of[order])


def drawn() -> Configurations:
    """(C, gamma), log-uniform."""
    ends = np.log([BOUNDS, GAMMAS])
    points = np.random.default_rng(SEED).uniform(ends[:, 0], ends[:, 1], (CONFIGURATIONS, 2))
    return [(float(bound), float(gamma)) for bound, gamma in np.exp(points)]


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def in_process(data: Problem, configurations: Configurations) -> np.ndarray:
    """fissura in this process: the scores [m]."""
    distances = squared_distances(data.features)
    solve = solver(data, distances)
    order, predictions = tour(configurations), np.empty((len(configurations), len(data.labels)), np.int64)
    shares = np.array_split(order, cpus())
    with ThreadPoolExecutor(cpus()) as pool:
        parts = pool.map(solve, [[configurations[index] for index in share] for share in shares])
        for share, part in zip(shares, parts, strict=True):
            predictions[share] = part
    return data.scores(predictions)


def solver(data: Problem, distances: np.ndarray) -> Callable[[Configurations], np.ndarray]:
    """Configurations -> predictions [m, n]."""
    scales = mean_squared_distances(distances, fold_of=data.fold_of)

    def solve(configurations: Configurations) -> np.ndarray:
        found = cross_validate(
            distances,
            labels=data.labels,
            fold_of=data.fold_of,
            configurations=configurations,
            scales=scales,
            tolerance=TOLERANCE,
        )
        if not found.converged.all():
            sys.exit("a machine of fissura's did not converge")
        return found.predictions

    return solve


def in_actors(data: Problem, configurations: Configurations) -> np.ndarray:
    """fissura in Ray actors, a batch of neighbouring configurations a call: the scores [m]."""
    import ray
    from ray.util import ActorPool

    @ray.remote(num_cpus=1)
    class Solver:
        def __init__(self, data: Problem, distances: np.ndarray) -> None:
            self.solve = solver(data, distances)

        def run(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return indices, self.solve([configurations[index] for index in indices])

    narrow = Problem(np.empty((0, 0)), data.labels, data.fold_of)
    distances = ray.put(squared_distances(data.features))
    actors = [Solver.remote(narrow, distances) for _ in range(cpus())]
    order, predictions = tour(configurations), np.empty((len(configurations), len(data.labels)), np.int64)
    batches = np.array_split(order, max(len(order) // BATCH, cpus()))
    for indices, part in ActorPool(actors).map_unordered(
        lambda actor, batch: actor.run.remote(batch), batches
    ):
        predictions[indices] = part
    for actor in actors:
        ray.kill(actor)
    return data.scores(predictions)


def precomputed(data: Problem, configurations: Configurations) -> np.ndarray:
    """`SVC(kernel="precomputed")` on distances that all configurations share: the scores [m]."""
    distances = squared_distances(data.features)
    scales = mean_squared_distances(distances, fold_of=data.fold_of)

    def predicted(configuration: tuple[float, float]) -> np.ndarray:
        bound, gamma = configuration
        found = np.empty(len(data.labels), np.int64)
        for (training, held), scale in zip(data.splits(), scales, strict=True):
            kernel = np.exp(distances[:, training].astype(np.float64) * (-gamma / scale))
            machine = SVC(kernel="precomputed", C=bound, tol=TOLERANCE)
            found[held] = machine.fit(kernel[training], data.labels[training]).predict(kernel[held])
        return found

    with ThreadPoolExecutor(cpus()) as pool:
        return data.scores(np.array(list(pool.map(predicted, configurations))))


def pipeline(bound: float = 1.0, gamma: float = 1.0) -> Pipeline:
    return Pipeline([("scaling", UnitDistance()), ("svm", SVC(C=bound, gamma=gamma, tol=TOLERANCE))])


def randomized_search(data: Problem, configurations: Configurations) -> np.ndarray:
    """scikit-learn: the scores [m]."""
    search = RandomizedSearchCV(
        pipeline(),
        [{"svm__C": [bound], "svm__gamma": [gamma]} for bound, gamma in configurations],
        n_iter=len(configurations),
        scoring="f1",
        n_jobs=-1,
        refit=False,
        cv=data.splits(),
        random_state=SEED,
        error_score="raise",
    ).fit(data.features.astype(np.float64), data.labels)
    found = zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    score_of = {(params["svm__C"], params["svm__gamma"]): score for params, score in found}
    return np.array([score_of[configuration] for configuration in configurations])


def optuna_study(data: Problem, configurations: Configurations) -> np.ndarray:
    """Optuna in this process: the scores [m]."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    features, splits = data.features.astype(np.float64), data.splits()
    study = optuna.create_study(direction="maximize")
    for bound, gamma in configurations:
        study.enqueue_trial({"C": bound, "gamma": gamma})

    def objective(trial: optuna.Trial) -> float:
        machine = pipeline(
            trial.suggest_float("C", *BOUNDS, log=True), trial.suggest_float("gamma", *GAMMAS, log=True)
        )
        return float(cross_val_score(machine, features, data.labels, scoring="f1", cv=splits).mean())

    study.optimize(objective, n_trials=len(configurations), n_jobs=cpus())
    score_of = {(trial.params["C"], trial.params["gamma"]): trial.value for trial in study.trials}
    return np.array([score_of[configuration] for configuration in configurations])


def ray_tune(data: Problem, configurations: Configurations) -> np.ndarray:
    """Bare Ray Tune: the scores [m]."""
    from ray import tune

    def trainable(config: dict[str, int], data: Problem) -> None:
        machine = pipeline(*configurations[config["index"]])
        features = data.features.astype(np.float64)
        scores = cross_val_score(machine, features, data.labels, scoring="f1", cv=data.splits())
        tune.report({"f1": float(scores.mean())})

    with tempfile.TemporaryDirectory(prefix="svm-search-") as folder:
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, data=data), {"cpu": 1}),
            param_space={"index": tune.grid_search(list(range(len(configurations))))},
            run_config=tune.RunConfig(verbose=0, storage_path=folder),
        ).fit()
        score_of = {result.config["index"]: result.metrics["f1"] for result in results}
    return np.array([score_of[index] for index in range(len(configurations))])


Search = Callable[[Problem, Configurations], np.ndarray]
OURS: dict[str, Search] = {"fissura, in process": in_process, "fissura, Ray actors": in_actors}
SHARING = {"SVC on shared distances": precomputed}
PEERS: dict[str, Search] = {
    "RandomizedSearchCV": randomized_search,
    "Optuna": optuna_study,
    "Ray Tune": ray_tune,
}


def seconds(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    scores = work()
    return time.perf_counter() - start, scores


def compare(data: Problem, *, few: np.ndarray, repetitions: int) -> dict[str, Any]:
    """One width: every search's seconds for all configurations, and how far its scores are from ours."""
    configurations = drawn()
    some = [configurations[index] for index in few]
    rows: dict[str, Any] = {}
    whole = OURS | SHARING
    turns = [
        {name: seconds(partial(search, data, configurations)) for name, search in whole.items()}
        for _ in range(repetitions)
    ]
    ours = turns[0][next(iter(OURS))][1]
    for name in whole:
        runs = [turn[name][0] for turn in turns]
        off = float(max(np.abs(turn[name][1] - ours).max() for turn in turns))
        rows[name] = {"seconds": median(runs), "runs": runs, "largest_difference": off}
        report(name, rows[name])
    for name, search in PEERS.items():
        taken, scores = seconds(partial(search, data, some))
        rows[name] = {
            "seconds": taken * len(configurations) / len(some),
            "measured_seconds": taken,
            "measured_configurations": len(some),
            "largest_difference": float(np.abs(scores - ours[few]).max()),
        }
        report(name, rows[name])
    fastest = min(PEERS, key=lambda name: rows[name]["seconds"])
    for name in OURS:
        rows[name]["ratio"] = rows[fastest]["seconds"] / rows[name]["seconds"]
        rows[name]["ratio_on_shared_distances"] = [
            turn[peer][0] / turn[name][0] for turn in turns for peer in SHARING
        ]
    return {
        "samples": len(data.labels),
        "width": data.features.shape[1],
        "best_f1": float(ours.max()),
        "fastest_peer": fastest,
        "searches": rows,
    }


def report(name: str, row: dict[str, Any]) -> None:
    part = row.get("measured_configurations", CONFIGURATIONS)
    note = "" if part == CONFIGURATIONS else f"  (extrapolated from {part}: {row['measured_seconds']:.1f} s)"
    rate = CONFIGURATIONS / row["seconds"]
    print(
        f"  {name:22}{row['seconds']:10.1f} s{rate:10.2f} a second"
        f"{row['largest_difference']:12.1e} off in F1{note}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[240, 960, 1920])
    parser.add_argument("--peer-configurations", type=int, default=CONFIGURATIONS)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # an open Ray would run anyone's code
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    import ray

    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    private = ExitStack()
    folder = private.enter_context(private_folder())
    ray.init(
        address="local", num_cpus=cpus(), include_dashboard=False, log_to_driver=False, _temp_dir=str(folder)
    )
    small = problem(*made(8))
    precomputed(small, drawn()[:2])
    compiling, _ = seconds(lambda: in_process(small, drawn()[:2]))
    randomized_search(small, drawn()[:2])
    order = np.array(tour(drawn()))
    few = order[
        np.linspace(0, CONFIGURATIONS - 1, min(arguments.peer_configurations, CONFIGURATIONS)).astype(int)
    ]
    if arguments.features is None:
        problems = [problem(*made(width)) for width in arguments.widths]
    else:
        with np.load(arguments.features, allow_pickle=False) as held:
            problems = [problem(held["features"], held["labels"], held["groups"])]
    print(
        f"{CONFIGURATIONS} configurations, {FOLDS} folds, tolerance {TOLERANCE:g}, {cpus()} CPUs; loading or "
        f"compiling took {compiling:.1f} s"
    )
    rows = []
    for data in problems:
        print(f"{len(data.labels)} x {data.features.shape[1]}")
        rows.append(compare(data, few=few, repetitions=arguments.repetitions))
        ratios = ", ".join(f"{name} {rows[-1]['searches'][name]['ratio']:.0f}" for name in OURS)
        print(f"  times the throughput of {rows[-1]['fastest_peer']}: {ratios}", flush=True)
        for name in OURS:
            turns = rows[-1]["searches"][name]["ratio_on_shared_distances"]
            print(f"  times that of {', '.join(SHARING)}, {name}: {', '.join(f'{r:.1f}' for r in turns)}")
    ray.shutdown()
    private.close()
    write_json(
        RESULT,
        {
            "configurations": CONFIGURATIONS,
            "folds": FOLDS,
            "tolerance": TOLERANCE,
            "cpus": cpus(),
            "compiling_seconds": compiling,
            "features": "made" if arguments.features is None else arguments.features.name,
            "libraries": {
                name: version(name) for name in ("scikit-learn", "optuna", "ray", "numba", "numpy")
            },
            "widths": rows,
        },
    )
    problems_found = [
        f"{row['width']}: {name}'s F1 is {found['largest_difference']:.1e} off"
        for row in rows
        for name, found in row["searches"].items()
        if found["largest_difference"] > EQUAL
    ]
    problems_found += [
        f"{row['width']}: {name} has {row['searches'][name]['ratio']:.1f} times the rate, not {TARGET:g}"
        for row in rows
        for name in OURS
        if row["width"] >= TARGET_WIDTH and row["searches"][name]["ratio"] < TARGET
    ]
    if problems_found:
        sys.exit("\n".join(problems_found))


if __name__ == "__main__":
    main()
