"""A search of classifiers: features once, then batches of settings on what they share.

A Tune trial costs tens of milliseconds beside its work, and a setting of an SVM on shared distances takes
about as long. So the study's searcher suggests many settings at a time, and one Ray task scores all settings
that share a backbone and a whitening; it reads distances and features from the object store without a copy.
"""

import itertools
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from jaxtyping import Float32, Int64
from numpy import ndarray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError, WorkerCrashedError

from fissura.classification.cross_validation_score import FoldDistances, judge, judge_svms, shares_distances
from fissura.classification.recipe import ClassifierRecipe
from fissura.classification.trained_head import TrainedHead
from fissura.core.errors import UserError, named
from fissura.distributed.failure_policy import Event, Failure, decide
from fissura.distributed.search.gauges import SearchGauges
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.status_line import StatusLine
from fissura.distributed.search.trial_inputs import TrialInputs, distances_key
from fissura.distributed.stopping import StopFile

BATCH = 16
"""Settings per task, if the sampler learns nothing from waiting for each."""

SETTING_SECONDS = 3600.0
"""The default timeout of a setting; the slowest forests here take minutes."""

RETRIES = 3
"""How often Ray retries a setting whose process died; a lost node counts too."""

Setting = tuple[str, ClassifierRecipe]


@dataclass(frozen=True)
class SettingsBatch:
    """Settings that one task scores within `limit` seconds; it started at `begun` (monotonic), after `waited`
    seconds for their features."""

    settings: Sequence[Setting]
    limit: float
    waited: float
    begun: float


def score_all(
    search: StudySearch,
    inputs: TrialInputs,
    *,
    todo: int,
    concurrent: int,
    cpus: int,
    stop: StopFile,
    status_line: StatusLine,
    sequential: bool,
    seconds: float,
) -> None:
    """Scores `todo` more settings, `concurrent` tasks at a time; one by one if the sampler is `sequential`:
    each of its settings follows from the one before. A stop cancels running tasks; a setting that takes
    longer than `seconds` fails, and its process ends."""
    size, lanes = (1, 1) if sequential else (min(BATCH, max(1, todo // (2 * concurrent))), concurrent)
    numbers, running = itertools.count(), dict[ObjectRef, SettingsBatch]()
    while True:
        while todo > 0 and len(running) < lanes and not stop.requested():
            suggested = _ask(search, min(size, todo), numbers)
            todo = todo - len(suggested) if suggested else 0
            for settings in _alike(suggested, search.metrics):
                running |= _submit(settings, search, inputs, cpus=cpus, seconds=seconds)
        if not running:
            return
        status_line.begun()
        if stop.requested():
            # cancelled settings stay open in the study, and a resumed search starts with them
            for task in running:
                ray.cancel(task, force=True)
            return
        ended, _ = ray.wait(list(running), timeout=1.0)
        for task in ended:
            for setting in _tell(search, running.pop(task), task, status_line.gauges):
                running |= _submit([setting], search, inputs, cpus=cpus, seconds=seconds)
        status_line.tick()


def _ask(search: StudySearch, count: int, numbers: "itertools.count[int]") -> list[Setting]:
    settings = []
    for _ in range(count):
        trial_id = f"setting-{next(numbers)}"
        suggestion = search.suggest(trial_id)
        if not isinstance(suggestion, dict):
            break
        settings.append((trial_id, ClassifierRecipe.load(suggestion["recipe"], source="trial recipe")))
    return settings


def _alike(settings: Sequence[Setting], metrics: Sequence[str]) -> list[list[Setting]]:
    """The settings grouped into tasks: those that share distances together, each other by itself."""
    parts: dict[str, list[Setting]] = defaultdict(list)
    for trial_id, recipe in settings:
        alike = distances_key(recipe) if shares_distances(recipe, metrics) else trial_id
        parts[alike].append((trial_id, recipe))
    return list(parts.values())


def _submit(
    settings: list[Setting], search: StudySearch, inputs: TrialInputs, *, cpus: int, seconds: float
) -> dict[ObjectRef, SettingsBatch]:
    """Starts the task of these settings; if their inputs cannot be prepared, they fail with the reason."""
    first = settings[0][1]
    asked_at = time.monotonic()
    shared = len(settings) > 1 or shares_distances(first, search.metrics)
    try:
        sample = inputs.of(first)
        distances = inputs.distances(first) if shared else None
        head = inputs.head(first)
    except UserError as error:
        for trial_id, _ in settings:
            search.fail(trial_id, reason=str(error))
        return {}
    # a batch whose process dies again is retried setting by setting
    task = ray.remote(num_cpus=cpus, max_retries=1 if len(settings) > 1 else RETRIES)(_judge)
    plain = [recipe.plain() for _, recipe in settings]
    reference = task.remote(
        plain, sample.features, distances, sample.labels, sample.fold_of, list(inputs.classes), head, cpus,
        seconds * len(settings),
    )  # fmt: skip
    begun = time.monotonic()
    return {
        reference: SettingsBatch(
            settings, limit=seconds * len(settings), waited=begun - asked_at, begun=begun
        )
    }


def _tell(
    search: StudySearch, batch: SettingsBatch, reference: ObjectRef, gauges: SearchGauges
) -> Sequence[Setting]:
    """Tells the study the outcome of a batch; returns the settings to retry one by one after their shared
    process died."""
    try:
        results = ray.get(reference)
    except (RayError, UserError) as error:
        # a batch whose process died is retried setting by setting
        decision = decide(_failure(error, batch), forgiven=1 if len(batch.settings) > 1 else 0)
        if decision.action == "retry":
            return batch.settings
        results = [{"failure": decision.reason}] * len(batch.settings)
    seconds = batch.waited + time.monotonic() - batch.begun
    for (trial_id, _), result in zip(batch.settings, results, strict=True):
        if "failure" in result:
            search.fail(trial_id, reason=result["failure"])
        else:
            search.note(trial_id, {name: value for name, value in result.items() if value is not None})
            search.on_trial_complete(trial_id, {**result, "epoch": 1, "finished": True})
        number = search.number(trial_id)
        gauges.epoch(
            number,
            value=result.get(search.metrics[0]),
            seconds=seconds / len(batch.settings),
            wait_share=batch.waited / seconds,
        )
        gauges.ended(number)
    return []


def _failure(error: RayError | UserError, batch: SettingsBatch) -> Failure:
    if isinstance(error, RayTaskError | UserError):
        return Failure(Event.MISTAKE, named(error))
    seconds, tries = time.monotonic() - batch.begun, 1 + RETRIES
    if len(batch.settings) == 1 and isinstance(error, WorkerCrashedError) and seconds >= tries * batch.limit:
        return Failure(
            Event.HUNG,
            f"hung: it was not judged within {batch.limit:.0f} s, so its process ended, in every try; give"
            " slow settings more time with --trial-timeout, or leave them out of the space",
        )
    return Failure(Event.CRASHED, named(error))


def _judge(
    plain: list[dict[str, Any]],
    features: Float32[ndarray, "n d"],
    distances: FoldDistances | None,
    labels: Int64[ndarray, " n"],
    fold_of: Int64[ndarray, " n"],
    classes: list[str],
    head: TrainedHead | None,
    cpus: int,
    limit: float,
) -> list[dict[str, Any]]:
    """A Ray task: the scores of each setting, or its `failure`, the reason. The process ends after `limit`
    seconds."""
    # without a handler, the kernel ends the process, whatever it is stuck in
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit)
    recipes = [ClassifierRecipe.load(fields, source="trial recipe") for fields in plain]
    try:
        if distances is not None:
            return list(judge_svms(recipes, distances, labels=labels, fold_of=fold_of))
        return [
            judge(recipe, features, labels=labels, fold_of=fold_of, classes=classes, threads=cpus, head=head)
            for recipe in recipes
        ]
    except Exception as error:
        return [{"failure": named(error)}] * len(plain)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
