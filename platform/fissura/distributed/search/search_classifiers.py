"""Searches of classifiers: makes backbones and features, scores settings in batches, fits the best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from fissura.classification.cross_validation_score import whitened
from fissura.classification.evaluation import evaluate_classifier
from fissura.classification.recipe import ClassifierRecipe, classifier_of
from fissura.core.errors import ResourceError, UserError
from fissura.data.labelled import check_classes
from fissura.data.sources import labelled
from fissura.distributed.preflight import Slots
from fissura.distributed.search.classifier_trials import SETTING_SECONDS, score_all
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.status_line import StatusLine
from fissura.distributed.search.task_trials import SearchTerms
from fissura.distributed.search.trial_inputs import TrialInputs
from fissura.distributed.training.fit_classifier import fit_run
from fissura.records.class_store import CLEAN, FILE, read_classes
from fissura.records.study_ranking import best_trials
from fissura.records.trial_attributes import RUN
from fissura.reports.classification_plots import feature_map
from fissura.reports.figures import Plot
from fissura.spaces.space import Adaptive
from fissura.studies.task_results import TaskResults
from fissura.tasks.classification.results import ClassificationResults
from fissura.training.runtime import LocalRuntime


class ClassificationTrials:
    """See `TaskTrials`."""

    _slots: Slots
    _inputs: TrialInputs

    def __init__(self, terms: SearchTerms) -> None:
        self._terms = terms
        self._datasets = labelled(terms.plan.datasets)
        workers = terms.hardware.workers_per_trial
        if workers > 1:
            raise ResourceError(
                f"--workers-per-trial {workers}: a classifier is fitted on one node; leave it out (backbones"
                " and features use all nodes as it is)"
            )

    def prepare(self) -> None:
        """Checks the classes; the features are made later, on the cluster."""
        check_classes(self._datasets, directory=self._terms.cache)

    def place(self, slots: Slots) -> str:
        """See `TaskTrials`."""
        terms = self._terms
        self._slots = slots
        self._inputs = TrialInputs(
            self._datasets,
            storage=terms.study.path.parent,
            cache=terms.cache,
            content=terms.plan.content,
            workers=1,
            slots=slots,
            address=terms.hardware.address,
            say=terms.say,
        )
        return f"{slots.concurrent} batches at a time"

    def context(self) -> Mapping[str, Any]:
        """Empty: the settings of a batch share their inputs in the object store."""
        return {}

    def run(self, search: StudySearch, *, todo: int) -> None:
        """Scores settings by cross-validation. A setting that exceeds the search's timeout (by default an
        hour) fails."""
        terms, slots = self._terms, self._slots
        status_line = StatusLine(search, total=terms.plan.trials, unit="settings", say=terms.say)
        with status_line.starting():
            score_all(
                search,
                self._inputs,
                todo=todo,
                concurrent=slots.concurrent,
                cpus=slots.cpus,
                stop=terms.stop,
                status_line=status_line,
                sequential=isinstance(terms.space.definition.sampler, Adaptive),
                seconds=terms.trial_timeout or SETTING_SECONDS,
            )
        terms.say(status_line.line())

    def evaluate(self, trials: optuna.Study, runs: Sequence[str]) -> TaskResults:
        """Fits the settings of `runs` to all training images first, as a trial fits only folds."""
        terms, inputs, cpus = self._terms, self._inputs, self._slots.cpus
        trial_of = {trial.user_attrs[RUN]: trial for trial in best_trials(trials)}
        pictures: list[Plot] = []
        for run_id in runs:
            trial, run = trial_of[run_id], terms.study.runs / run_id
            recipe = classifier_of(terms.space.recipe_for(terms.space.completed(trial.params)))
            scores = {name: value for name, value in trial.user_attrs.items() if name.startswith("cv/")}
            try:
                fit_run(run, recipe, inputs, scores=scores, cpus=cpus)
                if not (run / FILE).is_file():
                    evaluate_classifier(
                        run,
                        inputs.images,
                        content=inputs.content,
                        split="test",
                        conditions=(CLEAN,),
                        device=LocalRuntime(cpus=cpus).device,
                    )
                pictures = pictures or [_feature_map(run, recipe, inputs)]
            except UserError as error:
                terms.say(f"run {run_id}: {error}")
        return ClassificationResults(images=inputs.images, pictures=pictures)


def _feature_map(run: Path, recipe: ClassifierRecipe, inputs: TrialInputs) -> Plot:
    """The whitened features of the test images that `run` classified, in two dimensions."""
    table = read_classes([run]).records[0].table
    row_of = {(keyed.source, keyed.image.name): row for row, keyed in enumerate(inputs.images)}
    columns = [table.column(name).to_pylist() for name in ("dataset", "image")]
    test_rows = np.array([row_of[key] for key in zip(*columns, strict=True)])
    training_rows = inputs.roles(recipe).classifier
    features = inputs.features(recipe)[np.concatenate([training_rows, test_rows])]
    training = np.arange(len(features)) < len(training_rows)
    return feature_map(
        whitened(features, whitening=recipe.whitens_by, training=training)[~training],
        labels=table.column("label").to_numpy(),
        predictions=table.column("prediction").to_numpy(),
        classes=inputs.classes,
        names=columns[1],
    )
