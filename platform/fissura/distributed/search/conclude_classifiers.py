"""The end of a search of classifiers: the best ones fitted, judged on test images, ranked and reported."""

from pathlib import Path

import numpy as np
import optuna

from fissura.classification.cross_validation_score import whitened
from fissura.classification.evaluation import evaluate_classifier
from fissura.classification.recipe import ClassifierRecipe, classifier_of
from fissura.core.errors import UserError
from fissura.core.progress import Say
from fissura.distributed.search.trial_inputs import Material
from fissura.distributed.training.fit_classifier import fit_run
from fissura.records.class_store import CLEAN, FILE, read_classes
from fissura.records.trial_attributes import RUN
from fissura.reports.classification_plots import feature_map
from fissura.reports.figures import Plot
from fissura.spaces.space import LoadedSpace
from fissura.studies.class_results import write_class_results
from fissura.studies.results import Conclusion
from fissura.studies.study import Study, best_trials, runs_to_keep
from fissura.training.runtime import LocalRuntime

FITTED_RUNS = 3


def conclude_classifiers(
    study: Study, trials: optuna.Study, space: LoadedSpace, material: Material, *, cpus: int, say: Say
) -> Conclusion:
    """Fits the best settings and the paper's own to all training images, judges them on the test images, and
    writes tables and report."""
    ended = {trial.user_attrs[RUN]: trial for trial in best_trials(trials)}
    pictures: list[Plot] = []
    for run_id in runs_to_keep(trials, best=FITTED_RUNS):
        trial, run = ended[run_id], study.runs / run_id
        recipe = classifier_of(space.recipe_for(space.completed(trial.params)))
        scores = {name: value for name, value in trial.user_attrs.items() if name.startswith("cv/")}
        try:
            fit_run(run, recipe, material, scores=scores, cpus=cpus)
            if not (run / FILE).is_file():
                evaluate_classifier(
                    run,
                    material.images,
                    content=material.content,
                    split="test",
                    conditions=(CLEAN,),
                    device=LocalRuntime(cpus=cpus).device,
                )
            pictures = pictures or [_feature_map(run, recipe, material)]
        except UserError as error:
            say(f"run {run_id}: {error}")
    return write_class_results(study, trials, pictures=pictures, images=material.images, say=say)


def _feature_map(run: Path, recipe: ClassifierRecipe, material: Material) -> Plot:
    """The whitened features of the test images that `run` classified, in two dimensions."""
    table = read_classes([run]).records[0].table
    row_of = {(one.source, one.image.name): row for row, one in enumerate(material.images)}
    columns = [table.column(name).to_pylist() for name in ("dataset", "image")]
    tested = np.array([row_of[key] for key in zip(*columns, strict=True)])
    learnt = material.roles(recipe).classifier
    features = material.features(recipe)[np.concatenate([learnt, tested])]
    training = np.arange(len(features)) < len(learnt)
    return feature_map(
        whitened(features, whitening=recipe.whitening, training=training)[~training],
        labels=table.column("label").to_numpy(),
        predictions=table.column("prediction").to_numpy(),
        classes=material.classes,
        names=columns[1],
    )
