"""Kills a piece of work at one of its writes after the other, has it go on, and compares what it came to.

    python tests/attacks/write_points.py training|classifier|study FOLDER STEP

Each try is a process of its own. It is killed at every STEP-th write point: before a file is opened for
writing; while the file that is to take its name is cut in half; when that is whole and has not its name yet;
when half of what was appended is there; before and after a statement of the study's database. A line of JSON
says what was found.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.numpy import load_file
from sqlalchemy import event
from sqlalchemy.engine import Engine

from fissura.classical.compression import Compression, compact
from fissura.classical.estimators import SVM, NoWhitening, pipeline
from fissura.data.content import content_digest
from fissura.data.datasets import parse_datasets
from fissura.data.labelled import ClassFolder, image_keys, labelled_digest
from fissura.data.synthetic import SyntheticSpec, write
from fissura.engine.classifier_recipe import ClassifierRecipe
from fissura.engine.classifier_run import close_classifier_run
from fissura.engine.evaluate import evaluate
from fissura.engine.evaluate_classifier import evaluate_classifier
from fissura.engine.feature_store import FeatureStore
from fissura.engine.features import ImageToRead, backbone_digest, extract
from fissura.engine.fit import fit
from fissura.engine.recipe import Recipe
from fissura.engine.runtime import LocalRuntime
from fissura.jobs.searcher import StudySearch
from fissura.jobs.trial import TrialActor, TrialContext
from fissura.models.backbones import Backbone
from fissura.recipes import load_recipe
from fissura.results.class_store import CLEAN
from fissura.studies.load import load_text
from fissura.studies.paths import override
from fissura.studies.plan import Plan
from fissura.studies.results import write_results
from fissura.studies.study import Study, finished

CPU = torch.device("cpu")
SMALL = {"model.width": 4, "model.depth": 2, "data.crop.size": 32, "data.batch_size": 2, "epochs": 2}
SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
sampler: {kind: random}
space:
  seed: {choice: [0, 1]}
"""
CLOCKS = {
    "images_per_second",
    "wait_share",
    "seconds",
    "started",
    "finished",
    "microseconds",
    "classifier_microseconds",
    "latency_ms",
}
Facts = dict[str, Any]
TRY_SECONDS = 120


class Points:
    """Counts the write points of this process below a folder, and kills it at one of them."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self._folder, self._kill_at = f"{folder}/", kill_at
        self._count = 0
        self._appended: str | None = None
        sys.addaudithook(self._hook)
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "after_cursor_execute", self._statement)
        event.listen(Engine, "commit", self._statement)

    def _hook(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in ("open", "os.rename") or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if not isinstance(path, str) or not path.startswith(self._folder):
            return
        if name == "os.rename":
            self._point(f"cut in half: {arguments[1]}", cut=path, share=0.5)
            self._point(f"not renamed yet: {arguments[1]}")
        elif arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            if self._appended is not None:
                self._point(f"half appended: {self._appended}", cut=self._appended, share=0.9)
            self._appended = path if arguments[2] & os.O_APPEND else None
            self._point(f"before: {path}")

    def _statement(self, *_: object) -> None:
        self._point("a statement of the database")

    def _point(self, what: str, *, cut: str | None = None, share: float = 1.0) -> None:
        self._count += 1
        if self._count - 1 != self._kill_at:
            return
        if cut is not None and Path(cut).is_file():
            os.truncate(cut, int(Path(cut).stat().st_size * share))
        os.write(1, f"{json.dumps({'killed': what.replace(self._folder, '')})}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def training(folder: Path, shared: Path) -> Facts:
    """A segmenter of two epochs, and its scores."""
    datasets = parse_datasets([f"synthetic:{shared / 'cracks'}"])
    recipe = override(load_recipe("small_unet"), SMALL)
    assert isinstance(recipe, Recipe)
    run = folder / "run"
    fit(
        recipe, datasets=datasets, run=run, cache=shared / "cache", runtime=LocalRuntime(device="cpu", cpus=1)
    )
    evaluate(run, datasets=datasets, device=CPU)
    return facts(run)


def classifier(folder: Path, shared: Path) -> Facts:
    """The features of a backbone of random weights, a classifier of them, and its classes."""
    data = ClassFolder(root=shared / "walls")
    images, content = image_keys([data]), labelled_digest([data])
    recipe = ClassifierRecipe(
        name="walls",
        backbone=Backbone(kind="mobilenet_v3", weights="none", input_size=32),
        whitening=NoWhitening(),
    )
    torch.manual_seed(0)
    network = recipe.backbone.build().eval()
    store = FeatureStore(
        folder / "features", backbone_digest=backbone_digest(network), dimensions=network.dimensions
    )
    for half in (images[::2], images[1::2]):
        missing = set(store.missing([each.key for each in half]))
        reads = [ImageToRead(each.key, each.image.name, each.read) for each in half if each.key in missing]
        if reads:
            found = extract(network, reads, batch_size=4, device=CPU)
            store.write(found.keys, found.features)
    store.compact(at_least=2)
    features = store.read([each.key for each in images])
    labels = np.array([each.image.label for each in images])
    fitted = pipeline(recipe.whitening, classifier=SVM(C=10), seed=0).fit(features, labels)
    small = compact(
        fitted, features=features, labels=labels, compression=Compression(), seed=0, classes=data.classes()
    )
    run = folder / "run"
    close_classifier_run(
        run, recipe=recipe, network=network, classifier=small, datasets=(data,), content=content, metrics={},
        seconds=1.0, cpus=1,
    )  # fmt: skip
    evaluate_classifier(run, images, content=content, split="test", conditions=(CLEAN,), device=CPU)
    return facts(run) | {"features": features.tolist()}


def study(folder: Path, shared: Path) -> Facts:
    """Two trials of a segmenter as a driver and a trial's process run them, their scores, and the results."""
    datasets, cache = parse_datasets([f"synthetic:{shared / 'cracks'}"]), shared / "cache"
    content = content_digest(datasets, directory=cache)
    space = load_text(SPACE, source="mine.yaml", fixed=SMALL)
    own = Study(folder / "study")
    plan = Plan(
        name="study",
        space=SPACE,
        profile=None,
        fixed=SMALL,
        datasets=datasets,
        content=content,
        trials=2,
        seed=0,
    )
    own.write(plan)
    context = TrialContext(study=own.path, datasets=datasets, content=content, cache=cache, cpus=1)
    search = StudySearch(
        space, storage=own.storage(), study_name="study", seed=0, content=content, context=context.plain(),
        stop_requested=lambda: False,
    )  # fmt: skip
    while len(finished(search.study)) < plan.trials:
        number = f"trial {len(search.study.trials)}"
        actor = TrialActor(config=search.suggest(number))
        while not (result := actor.train())["done"]:
            search.on_trial_result(number, result)
        search.on_trial_complete(number, result)
        actor.stop()
    runs = [own.runs / trial.user_attrs["run"] for trial in finished(search.study)]
    for run in runs:
        evaluate(run, datasets=datasets, content=content, device=CPU)
    said: list[str] = []
    write_results(own, search.study, say=said.append)
    trials = {
        str(trial.params): [trial.state.name, trial.values, trial.intermediate_values]
        for trial in finished(search.study)
    }
    return {"trials": trials, "said": sorted(said)} | {run.name: facts(run) for run in runs}


def facts(run: Path) -> Facts:
    """All that a run came to, but for what clocks say: arrays, JSON, tables, pictures."""
    found: Facts = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name.startswith("."):  # what a killed writer left, which nobody reads
            continue
        if path.suffix == ".safetensors" and "checkpoint" not in name:
            found[name] = {key: array.tolist() for key, array in load_file(path).items()}
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".parquet":
            found[name] = timeless(pq.read_table(path).to_pylist())
        elif path.suffix == ".png":
            found[name] = np.array(Image.open(path)).tolist()
        elif path.is_file():
            found[name] = "there"
    return found


def timeless(plain: Any) -> Any:
    """JSON without the times in it."""
    if isinstance(plain, dict):
        kept = {
            key: timeless(value)
            for key, value in plain.items()
            if key not in CLOCKS | {"files", "before", "sha256"}
        }
        return {key: value for key, value in kept.items() if not key.endswith(("_seconds", "_microseconds"))}
    return [timeless(item) for item in plain] if isinstance(plain, list | tuple) else plain


WORKS: dict[str, Callable[[Path, Path], Facts]] = {
    "training": training,
    "classifier": classifier,
    "study": study,
}


def tried(work: str, folder: Path, shared: Path, *, kill_at: int | None) -> tuple[int, dict[str, str]]:
    """The work in a process of its own: its exit code, and what the work came to."""
    out = folder.with_suffix(".json")
    # forked from a process that has imported and done nothing: a fork of one with threads may wait for ever
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fissura.engine.fit", "fissura.jobs.trial", "fissura.studies.results"])
    process = context.Process(target=done, args=(work, folder, shared, kill_at, out))
    process.start()
    process.join(TRY_SECONDS)
    assert process.exitcode is not None, f"it did not end within {TRY_SECONDS} s"
    found = json.loads(out.read_text()) if process.exitcode == 0 else {}
    return process.exitcode, {name: json.dumps(value, sort_keys=True) for name, value in found.items()}


def done(work: str, folder: Path, shared: Path, kill_at: int | None, out: Path) -> None:
    """Does the work, up to the write point at which it is killed."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    Points(folder, kill_at)
    out.write_text(json.dumps(WORKS[work](folder, shared), sort_keys=True))


def draw(shared: Path) -> None:
    """The data of all tries, and the segmenter's prepared images."""
    write(
        SyntheticSpec(train=2, val=1, test=1, height=48, width=48, crack_width=(1.5, 4.0)), shared / "cracks"
    )
    greys = np.random.default_rng(0).integers(-9, 9, (12, 32, 32, 3))
    for number, noise in enumerate(greys):
        label, grey = (("crack", 40), ("sound", 200))[number % 2]
        path = shared / "walls" / label / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((grey + noise).astype(np.uint8)).save(path)


def main(work: str, folder: Path, step: int) -> None:
    """All tries; the first difference ends them."""
    shared = folder / "shared"
    draw(shared)
    status, undisturbed = tried(work, folder / "whole", shared, kill_at=None)
    assert status == 0, "undisturbed it did not end"
    for point in range(0, 10**6, step):
        place = folder / f"at-{point:04d}"
        status, found = tried(work, place, shared, kill_at=point)
        if status == 0:
            assert found == undisturbed
            print(json.dumps({"points": point}))  # noqa: T201
            return
        assert status == -signal.SIGKILL, f"at point {point} it ended by itself"
        status, found = tried(work, place, shared, kill_at=None)
        assert status == 0, f"after point {point} it did not go on"
        different = [name for name in {*found, *undisturbed} if found.get(name) != undisturbed.get(name)]
        assert not different, f"after point {point} it came to other {', '.join(sorted(different))}"
        shutil.rmtree(place)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3]))
