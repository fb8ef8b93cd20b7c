"""Searches of segmenters: each trial is a training in Ray Tune, and the best runs are evaluated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune

from fissura.core.errors import UserError
from fissura.core.text import count
from fissura.data.content import notes_of
from fissura.data.sources import masked
from fissura.data.trainable import prepare_training
from fissura.distributed.preflight import Slots, check_batches, check_disk
from fissura.distributed.search.schedulers import scheduler_for
from fissura.distributed.search.search import run_trials
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.task_trials import SearchTerms
from fissura.distributed.search.trial import TrialActor, TrialContext
from fissura.distributed.search.trial_workers import ACTOR_RESOURCES, WorkersContext, WorkersTrial
from fissura.records import store
from fissura.records.run_files import MANIFEST
from fissura.records.study_ranking import finished
from fissura.segmentation.evaluation import evaluate
from fissura.segmentation.recipe import segmenter_of
from fissura.studies.results import drop_checkpoints
from fissura.studies.task_results import TaskResults
from fissura.tasks.segmentation.results import SEGMENTATION_RESULTS
from fissura.training.runtime import LocalRuntime


class SegmentationTrials:
    """See `TaskTrials`."""

    _slots: Slots

    def __init__(self, terms: SearchTerms) -> None:
        self._terms = terms
        self._paper = segmenter_of(terms.space.recipe_for(terms.space.paper_point()))

    def prepare(self) -> None:
        """Prepares images and masks at the working size, as one memory-mapped file on each node."""
        terms, datasets = self._terms, masked(self._terms.plan.datasets)
        prepared = prepare_training(
            datasets,
            resize=self._paper.data.resize,
            directory=terms.cache,
            content=terms.plan.content,
            on_sample=terms.on_image,
        )
        for remark in [*notes_of(datasets), *prepared.remarks]:
            terms.say(remark)

    def place(self, slots: Slots) -> str:
        """See `TaskTrials`."""
        check_disk(self._paper, storage=self._terms.study.path, slots=slots)
        check_batches(self._terms.space, workers=slots.workers)
        self._slots = slots
        workers = f" {slots.workers} workers each, of" if slots.workers > 1 else ""
        each = f"{count(slots.cpus, 'CPU')} and {count(slots.gpus, 'GPU')} each"
        return f"{slots.concurrent} at a time,{workers} {each}"

    def context(self) -> Mapping[str, Any]:
        """The plain form of a `TrialContext`, or of a `WorkersContext`."""
        slots = self._slots
        if slots.workers == 1:
            return self._context().plain()
        shared = dict(self._context())
        return WorkersContext(**shared, workers=slots.workers, gpu=slots.gpus > 0).plain()

    def _context(self) -> TrialContext:
        study, plan, cache = self._terms.study, self._terms.plan, self._terms.cache
        return TrialContext(
            study=study.path,
            datasets=masked(plan.datasets),
            content=plan.content,
            cache=cache,
            cpus=self._slots.cpus,
        )

    def run(self, search: StudySearch, *, todo: int) -> None:
        """See `TaskTrials`."""
        terms, slots = self._terms, self._slots
        trainable = tune.with_resources(TrialActor, {"cpu": slots.cpus, "gpu": slots.gpus})
        if slots.workers > 1:
            trainable = tune.with_resources(WorkersTrial, ACTOR_RESOURCES)
        run_trials(
            trainable,
            search,
            terms.study,
            todo=todo,
            scheduler=scheduler_for(terms.space, epochs=terms.space.longest, earlier=finished(search.study)),
            concurrent=slots.concurrent,
            total=terms.plan.trials,
            say=terms.say,
            trial_timeout=terms.trial_timeout,
        )

    def evaluate(self, trials: optuna.Study, runs: Sequence[str]) -> TaskResults:
        """Evaluates `runs` in parallel on the cluster; removes the weights of all but the best runs."""
        study, say, slots = self._terms.study, self._terms.say, self._slots
        drop_checkpoints(study, trials)
        unevaluated = [
            study.runs / run
            for run in runs
            if (study.runs / run / MANIFEST).is_file() and not (study.runs / run / store.FILE).is_file()
        ]
        if unevaluated:
            say(f"evaluating {count(len(unevaluated), 'run')} on the test images")
        score = ray.remote(num_cpus=slots.cpus, num_gpus=slots.gpus)(_evaluate)
        context = self._context().plain()
        for problem in ray.get([score.remote(context, str(run)) for run in unevaluated]):
            if problem:
                say(problem)
        return SEGMENTATION_RESULTS


def _evaluate(context: dict[str, Any], run: str) -> str:
    """A Ray task: evaluates one run; returns the error, or an empty text."""
    plan = TrialContext.load(context, source="evaluation context")
    try:
        evaluate(
            Path(run),
            datasets=plan.datasets,
            content=plan.content,
            device=LocalRuntime(cpus=plan.cpus).device,
        )
    except UserError as error:
        return str(error)
    return ""
