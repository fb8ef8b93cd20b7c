"""What is killed in its writes: work that goes on where it was, without Ray, and what it comes to."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.numpy import load_file

from fissura.classification.cross_validation_score import fit as fit_classifier
from fissura.classification.cross_validation_score import fold_distances, judge_svms
from fissura.classification.evaluation import evaluate_classifier
from fissura.classification.feature_store import FeatureStore
from fissura.classification.features import ImageToRead, backbone_digest, extract
from fissura.classification.recipe import ClassifierRecipe
from fissura.classification.run import close_classifier_run
from fissura.data.content import content_digest
from fissura.data.datasets import parse_datasets
from fissura.data.labelled import KeyedImage, image_keys, labelled_digest, parse_labelled
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.trial import TrialActor, TrialContext
from fissura.models.backbones import FeatureNetwork
from fissura.recipes import load_recipe
from fissura.records import class_store, store
from fissura.records.run_files import MANIFEST
from fissura.records.study_ranking import best_trials, finished
from fissura.records.trial_attributes import RUN
from fissura.segmentation.evaluation import evaluate
from fissura.segmentation.fit import fit
from fissura.segmentation.recipe import Recipe
from fissura.spaces.fields import override
from fissura.studies.results import drop_checkpoints, write_results
from fissura.studies.study import Plan, Study
from fissura.studies.trial_records import read_records
from fissura.studies.verification import verify
from fissura.tasks.classification.results import ClassificationResults
from fissura.training.runtime import LocalRuntime

CPU = torch.device("cpu")
SMALL = {"model.width": 4, "model.depth": 2, "data.crop.size": 32, "data.batch_size": 2, "epochs": 2}
SEGMENTERS = (
    "recipe: small_unet\nobjective: {metric: val/f1, mode: max}\nsampler: {kind: random}\n"
    "space:\n  seed: {choice: [0, 1]}\n"
)
RAW = {"backbone.weights": "none", "backbone.input_size": 32, "folds": 2}
CLASSIFIERS = (
    "recipe: cnn_svm\nobjective: {metric: cv/f1, mode: max}\nsampler: {kind: random}\n"
    "space:\n  classifier.C: {choice: [0.1, 1.0, 10.0]}\n"
)
CLOCKS = {
    "images_per_second",
    "wait_share",
    "seconds",
    "started",
    "finished",
    "microseconds",
    "classifier_microseconds",
    "latency_ms",
    "files",
    "before",
    "sha256",
    "code_version",
}
Facts = dict[str, Any]


def training(folder: Path, shared: Path) -> Facts:
    """A segmenter of two epochs, and its scores."""
    datasets = parse_datasets([f"synthetic:{shared / 'cracks'}"])
    recipe = override(load_recipe("small_unet"), SMALL)
    assert isinstance(recipe, Recipe)
    run, runtime = folder / "run", LocalRuntime(device="cpu", cpus=1)
    fit(recipe, datasets=datasets, run=run, cache=shared / "cache", runtime=runtime)
    evaluate(run, datasets=datasets, device=CPU)
    return facts(run) | {"faults": verify(run).faults}


def segmenters(folder: Path, shared: Path) -> Facts:
    """A study: two trials as a driver and a trial's process run them, their scores, and the results."""
    datasets, cache = parse_datasets([f"synthetic:{shared / 'cracks'}"]), shared / "cache"
    content = content_digest(datasets, directory=cache)
    study, plan = Study(folder / "study"), planned(SEGMENTERS, SMALL, datasets, content, trials=2)
    context = TrialContext(study=study.path, datasets=datasets, content=content, cache=cache, cpus=1)
    with study.claimed():
        search = begun(study, plan, context.plain())
        while len(finished(search.study)) < plan.trials:
            number = f"trial {len(search.study.trials)}"
            actor = TrialActor(config=search.suggest(number))
            while not (result := actor.train())["done"]:
                search.on_trial_result(number, result)
            search.on_trial_complete(number, result)
            actor.stop()
        drop_checkpoints(study, search.study)
        for trial in finished(search.study):
            run = study.runs / trial.user_attrs[RUN]
            if not (run / store.FILE).is_file():
                evaluate(run, datasets=datasets, content=content, device=CPU)
        write_results(study, search.study, say=lambda _: None)
    return study_facts(study, search.study)


def classifiers(folder: Path, shared: Path) -> Facts:
    """A study: the features of a backbone of random weights, three settings of an SVM judged on them, the
    best one fitted, its scores, and the results."""
    datasets = parse_labelled([f"class_folder:{shared / 'walls'}"])
    content = labelled_digest(datasets, directory=shared / "cache")
    images = image_keys(datasets, directory=shared / "cache")
    trained = [one for one in images if one.image.split == "train"]
    labels = np.array([one.image.label for one in trained])
    fold_of = np.arange(len(labels)) // 2 % 2
    study, plan = Study(folder / "study"), planned(CLASSIFIERS, RAW, datasets, content, trials=3)
    with study.claimed():
        search = begun(study, plan, {})
        space = plan.load_space(study.path)
        first = recipe_of(space.recipe_for(space.paper_point()).plain())
        torch.manual_seed(0)
        network = first.backbone.build(weights="none").eval()
        features = features_of(network, trained, folder / "features")
        shared_distances = fold_distances(features, fold_of=fold_of, whitening=first.whitening)
        while len(finished(search.study)) < plan.trials:
            number = f"setting {len(search.study.trials)}"
            recipe = recipe_of(search.suggest(number)["recipe"])
            (scores,) = judge_svms([recipe], shared_distances, labels=labels, fold_of=fold_of)
            search.note(number, {name: value for name, value in scores.items() if value is not None})
            search.on_trial_complete(number, {**scores, "epoch": 1, "finished": True})
        best = best_trials(search.study)[0]
        recipe = recipe_of(space.recipe_for(space.completed(best.params)).plain())
        run, classes = study.runs / best.user_attrs[RUN], ("crack", "sound")
        if not (run / MANIFEST).is_file():
            close_classifier_run(
                run, recipe=recipe, network=network, datasets=datasets, content=content, metrics={},
                classifier=fit_classifier(recipe, features, labels=labels, classes=classes),
                seconds=1.0, cpus=1,
            )  # fmt: skip
        if not (run / class_store.FILE).is_file():
            evaluate_classifier(
                run, images, content=content, split="test", conditions=(class_store.CLEAN,), device=CPU
            )
        write_results(study, search.study, results=ClassificationResults(images=images), say=lambda _: None)
    return study_facts(study, search.study) | {"features": digest_of(features)}


def features_of(network: FeatureNetwork, images: list[KeyedImage], folder: Path) -> np.ndarray:
    """The features of images, through a store of them that is written in two parts and put together."""
    digest = backbone_digest(network)
    features = FeatureStore(folder, backbone_digest=digest, dimensions=network.dimensions)
    for half in (images[::2], images[1::2]):
        missing = set(features.missing([each.key for each in half]))
        reads = [ImageToRead(each.key, each.image.name, each.read) for each in half if each.key in missing]
        if reads:
            found = extract(network, reads, batch_size=4, device=CPU)
            features.write(found.keys, found.features)
    features.compact(at_least=2)
    return features.read([each.key for each in images])


def planned(space: str, fixed: dict[str, Any], datasets: Any, content: str, *, trials: int) -> Plan:
    """What a study is asked for."""
    return Plan(
        name="study", space=space, profile=None, fixed=fixed, datasets=datasets, content=content,
        trials=trials, seed=0,
    )  # fmt: skip


def begun(study: Study, plan: Plan, context: dict[str, Any]) -> StudySearch:
    """The searcher of a study, new or gone on with, as `fissura search` has it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study.write(plan)
    search = StudySearch(
        plan.load_space(study.path), storage=study.storage(), study_name=plan.name, seed=plan.seed,
        content=plan.content, context=context, stop_requested=lambda: False, on_end=study.keep_record,
    )  # fmt: skip
    study.keep_missing(search.study)
    return search


def recipe_of(plain: dict[str, Any]) -> ClassifierRecipe:
    """The classifier's recipe of a suggestion."""
    return ClassifierRecipe.load(plain, source="trial recipe")


def study_facts(study: Study, trials: optuna.Study) -> Facts:
    """All that a study came to: its own files, each run, the trials in the database and beside it, and the
    files that are not what was written."""
    ended = {
        str(trial.params): [trial.state.name, trial.values, trial.intermediate_values]
        for trial in finished(trials)
    }
    recorded = {
        str(record.params): [record.state, record.values, record.intermediate_values]
        for record in read_records(study.runs).found.values()
    }
    own = {path.name: "there" for path in study.path.iterdir() if not path.name.startswith(".")}
    assert json.dumps(ended, sort_keys=True) == json.dumps(recorded, sort_keys=True)
    runs = [facts(run) for run in sorted(study.runs.glob("*/"))]
    return {"trials": ended, "own": own, "runs": runs, "faults": verify(study.path).faults}


def facts(run: Path) -> Facts:
    """All that a run came to, but for what clocks say: arrays, JSON, tables, pictures."""
    found: Facts = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name.startswith("."):  # what a killed writer left, which nobody reads
            continue
        if path.suffix == ".safetensors" and "checkpoint" not in name:
            found[name] = {key: digest_of(array) for key, array in load_file(path).items()}
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".parquet":
            found[name] = timeless(pq.read_table(path).to_pylist())
        elif path.suffix == ".png":
            found[name] = digest_of(np.array(Image.open(path)))
        elif path.is_file():
            found[name] = "there"
    return found


def digest_of(array: np.ndarray) -> str:
    """Names what an array holds."""
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def timeless(plain: Any) -> Any:
    """JSON without the times in it, and without digests of what holds some."""
    if isinstance(plain, dict):
        kept = {key: timeless(value) for key, value in plain.items() if key not in CLOCKS}
        return {key: value for key, value in kept.items() if not key.endswith(("_seconds", "_microseconds"))}
    return [timeless(item) for item in plain] if isinstance(plain, list | tuple) else plain


WORKS: dict[str, Callable[[Path, Path], Facts]] = {
    "training": training,
    "segmenters": segmenters,
    "classifiers": classifiers,
}
