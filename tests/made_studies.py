"""Small whole studies of either task, searched by the platform's own parts in this process, without Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fissura.classical.compress import compact
from fissura.classical.estimators import BackboneHead, pipeline
from fissura.classification.evaluation import evaluate_classifier
from fissura.classification.recipe import ClassifierRecipe
from fissura.classification.run import close_classifier_run
from fissura.data.content import content_digest
from fissura.data.datasets.folder import Folder
from fissura.data.labelled import image_keys, labelled_digest, parse_labelled
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.search.searcher import StudySearch
from fissura.records.class_store import CLEAN
from fissura.segmentation.evaluation import evaluate
from fissura.segmentation.fit import fit
from fissura.segmentation.recipe import Recipe
from fissura.studies.results import write_results
from fissura.studies.study import Plan, Study
from fissura.tasks.classification.results import ClassificationResults
from fissura.training.runtime import LocalRuntime

CPU = torch.device("cpu")
SEGMENTS = (
    "recipe: small_unet\nobjective: {metric: val/f1, mode: max}\nspace:\n"
    "  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-1], log: true}\n"
    "  phases.train.loss.dice_weight: {float: [0.1, 10.0], log: true}\n"
)
TINY = {"model.width": 4, "model.depth": 2, "epochs": 1, "data.crop.per_image": 1}
CLASSIFIES = (
    "recipe: cnn_svm\nobjective: {metric: cv/f1, mode: max}\n"
    "space:\n  classifier.C: {float: [0.1, 10.0], log: true}\n"
)
SMALL = {"backbone.weights": "none", "backbone.input_size": 32, "folds": 2}


DAMAGES = ("deleted", "empty", "truncated", "zeroed", "random", "nested")


def damage(path: Path, kind: str) -> None:
    """Does to a file what `kind`, one of DAMAGES, says."""
    content, noise = path.read_bytes(), bytes(range(1, 251))
    size = len(content)
    if kind == "deleted":
        path.unlink()
    elif kind == "nested":
        path.write_text('{"a":' * 100_000)
    else:
        changed = {
            "empty": b"",
            "truncated": content[: size // 2],
            "zeroed": bytes(size),
            "random": (noise * (size // 250 + 1))[:size],
        }
        path.write_bytes(changed[kind])


def search(study: Study, plan: Plan) -> StudySearch:
    """The searcher of a study, as a search has it."""
    return StudySearch(
        plan.load_space(study.path), storage=study.storage(), study_name=plan.name, seed=plan.seed,
        content=plan.content, context={"study": str(study.path)}, stop_requested=lambda: False,
        on_end=study.keep_record,
    )  # fmt: skip


def result(value: float, metric: str, **more: Any) -> dict[str, Any]:
    """What a trial tells of its only epoch."""
    standing = {"finished": True, "interrupted": False, "failure": "", "done": True}
    return {"epoch": 1, "training_iteration": 1, metric: value, **standing, **more}


def segmentation(place: Path) -> Study:
    """A study of three segmenters that were trained for an epoch, one trial that was pruned, one that failed;
    the best is evaluated, leaderboard and report are written. The images lie in PLACE/images."""
    spec = SyntheticSpec(train=2, val=1, test=2, height=32, width=32, crack_width=(1.5, 4), seed=1)
    write(spec, place / "images")
    datasets, cache = (Folder(root=place / "images"),), place / "cache"
    content = content_digest(datasets, directory=cache)
    study = Study(place / "studies" / "it")
    plan = Plan(
        name="it",
        space=SEGMENTS,
        profile=None,
        fixed=TINY,
        datasets=datasets,
        content=content,
        trials=5,
        seed=0,
    )
    study.write(plan)
    asked = search(study, plan)
    for number in range(5):
        suggestion = asked.suggest(str(number))
        run = study.runs / suggestion["run_id"]
        if number == 3:
            asked.on_trial_complete("3", {**result(0.1, "val/f1"), "finished": False})
        elif number == 4:
            asked.fail("4", reason="out of memory")
        else:
            recipe = Recipe.load(suggestion["recipe"], source="test")
            fit(recipe, datasets=datasets, run=run, cache=cache, runtime=LocalRuntime(device="cpu", cpus=1))
            asked.on_trial_complete(str(number), result(0.5 + number / 10, "val/f1"))
            if number in (0, 2):
                evaluate(run, datasets=datasets, device=CPU)
    write_results(study, asked.study, say=lambda _: None)
    return study


def classification(place: Path) -> Study:
    """A study of three classifiers, the best of which has a run and is evaluated; leaderboard and report are
    written. The images lie in PLACE/walls, a folder a class."""
    for folder, grey in (("cracked", 60), ("sound", 180)):
        (place / "walls" / folder).mkdir(parents=True)
        for number in range(10):
            noise = np.random.default_rng([grey, number]).integers(0, 40, (32, 32, 3))
            Image.fromarray((grey + noise).astype(np.uint8)).save(place / "walls" / folder / f"{number}.png")
    datasets, cache = parse_labelled([f"class_folder:{place / 'walls'}"]), place / "cache"
    content = labelled_digest(datasets, directory=cache)
    study = Study(place / "studies" / "it")
    plan = Plan(
        name="it", space=CLASSIFIES, profile=None, fixed=SMALL, datasets=datasets, content=content, trials=3,
        seed=0,
    )  # fmt: skip
    study.write(plan)
    asked, recipes = search(study, plan), []
    for number in range(3):
        suggestion = asked.suggest(str(number))
        recipes.append((suggestion["run_id"], ClassifierRecipe.load(suggestion["recipe"], source="test")))
        asked.note(str(number), {"cv/f1": 0.5 + number / 10, "bytes": 1000.0, "microseconds": 5.0})
        asked.on_trial_complete(str(number), result(0.5 + number / 10, "cv/f1"))
    run_id, recipe = recipes[-1]
    images = image_keys(datasets, directory=cache)
    torch.manual_seed(0)
    network = recipe.backbone.build(weights="none").eval()
    trained = [image for image in images if image.image.split == "train"]
    pixels = torch.from_numpy(np.stack([image.read() for image in trained]))
    with torch.inference_mode():
        features = network(pixels).numpy()
    labels = np.array([image.image.label for image in trained])
    assert not isinstance(recipe.classifier, BackboneHead)
    fitted = pipeline(recipe.whitening, classifier=recipe.classifier, seed=0).fit(features, labels)
    close_classifier_run(
        study.runs / run_id, recipe=recipe, network=network, datasets=datasets, content=content,
        classifier=compact(
            fitted, features=features, labels=labels, compression=recipe.compression, seed=0,
            classes=("cracked", "sound"),
        ),
        metrics={"cv/f1": 0.7}, seconds=1.0, cpus=1,
    )  # fmt: skip
    evaluate_classifier(
        study.runs / run_id, images, content=content, split="test", conditions=(CLEAN,), device=CPU
    )
    write_results(study, asked.study, results=ClassificationResults(images=images), say=lambda _: None)
    return study
