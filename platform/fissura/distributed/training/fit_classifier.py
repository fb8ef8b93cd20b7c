"""Fits one setting of a classifier to all of its training images, as a run directory."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from fissura.classification.cross_validation_score import fit, judge
from fissura.classification.recipe import ClassifierRecipe
from fissura.classification.run import close_classifier_run
from fissura.core.errors import DataError
from fissura.distributed.search.trial_inputs import TrialInputs
from fissura.records.manifest import Manifest
from fissura.records.run_files import MANIFEST, read_manifest


def fit_run(
    run: Path, recipe: ClassifierRecipe, inputs: TrialInputs, *, scores: dict[str, Any], cpus: int
) -> Manifest:
    """Fits `recipe` into the directory `run`, unless it exists; `scores` are those of its cross-validation,
    which runs first if they are empty.

    Raises:
        DataError: one class only, fewer groups than folds, or features that are of no use.
    """
    if (run / MANIFEST).is_file():
        return read_manifest(run)
    begin = time.perf_counter()
    sample = inputs.of(recipe)
    features, head = ray.get(sample.features), inputs.head(recipe)
    if not scores:
        scores = judge(
            recipe,
            features,
            labels=sample.labels,
            fold_of=sample.fold_of,
            classes=inputs.classes,
            threads=cpus,
            head=head,
        )
    classifier = fit(recipe, features, labels=sample.labels, classes=inputs.classes, threads=cpus, head=head)
    if not np.isfinite(classifier.decision(features[:1])).all():
        raise DataError(f"{run}: the fitted classifier gives no numbers; choose another setting")
    return close_classifier_run(
        run,
        recipe=recipe,
        network=inputs.network(recipe),
        classifier=classifier,
        datasets=inputs.datasets,
        content=inputs.content,
        metrics={**scores, "images": len(sample.labels), "classes": list(inputs.classes)},
        seconds=time.perf_counter() - begin,
        cpus=cpus,
    )
