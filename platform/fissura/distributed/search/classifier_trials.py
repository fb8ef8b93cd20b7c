"""A search of classifiers: features once, then batches of settings on what they share.

A Tune trial costs tens of milliseconds beside its work, and a setting of an SVM on shared distances takes
about as long. So the study's searcher is asked for many settings at a time, and a Ray task judges all of them
that share a backbone and a whitening; distances and features are read from the object store without a copy.
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
from fissura.core.errors import UserError, named
from fissura.distributed.failure_policy import Event, Failure, decide
from fissura.distributed.search.gauges import SearchGauges
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.status_line import StatusLine
from fissura.distributed.search.trial_inputs import Material, distances_key
from fissura.distributed.stopping import StopFile

BATCH = 16
"""Settings a task, where the sampler learns nothing from waiting for each."""

SETTING_SECONDS = 3600.0
"""What a setting may take where nothing else is asked for; the slowest forests here take minutes."""

RETRIES = 3
"""How often Ray begins a setting again whose process died; a lost node is such a death."""

Asked = tuple[str, ClassifierRecipe]


@dataclass(frozen=True)
class SettingsBatch:
    """Settings that one task judges, within `limit` seconds; it began at `begun` (monotonic) after their
    features had taken `waited` seconds."""

    asked: Sequence[Asked]
    limit: float
    waited: float
    begun: float


def judge_all(
    search: StudySearch,
    material: Material,
    *,
    todo: int,
    concurrent: int,
    cpus: int,
    stop: StopFile,
    standing: StatusLine,
    sequential: bool,
    seconds: float,
) -> None:
    """Judges `todo` more settings, `concurrent` tasks at a time; one by one where the sampler is `sequential`
    and each of its settings follows from the one before. A stop cancels what is running; a setting that takes
    longer than `seconds` fails, and its process ends."""
    size, lanes = (1, 1) if sequential else (min(BATCH, max(1, todo // (2 * concurrent))), concurrent)
    numbers, running = itertools.count(), dict[ObjectRef, SettingsBatch]()
    while True:
        while todo > 0 and len(running) < lanes and not stop.requested():
            asked = _ask(search, min(size, todo), numbers)
            todo = todo - len(asked) if asked else 0
            for part in _alike(asked, search.metrics):
                running |= _submit(part, search, material, cpus=cpus, seconds=seconds)
        if not running:
            return
        if stop.requested():
            # what is cancelled stays open in the study, and is what a resumed search begins with
            for reference in running:
                ray.cancel(reference, force=True)
            return
        ended, _ = ray.wait(list(running), timeout=1.0)
        for reference in ended:
            for setting in _tell(search, running.pop(reference), reference, standing.gauges):
                running |= _submit([setting], search, material, cpus=cpus, seconds=seconds)
        standing.tick()


def _ask(search: StudySearch, count: int, numbers: "itertools.count[int]") -> list[Asked]:
    asked = []
    for _ in range(count):
        trial_id = f"setting-{next(numbers)}"
        suggestion = search.suggest(trial_id)
        if not isinstance(suggestion, dict):
            break
        asked.append((trial_id, ClassifierRecipe.load(suggestion["recipe"], source="trial recipe")))
    return asked


def _alike(asked: Sequence[Asked], metrics: Sequence[str]) -> list[list[Asked]]:
    """The settings that one task can judge: those that share distances together, each other by itself."""
    parts: dict[str, list[Asked]] = defaultdict(list)
    for trial_id, recipe in asked:
        alike = distances_key(recipe) if shares_distances(recipe, metrics) else trial_id
        parts[alike].append((trial_id, recipe))
    return list(parts.values())


def _submit(
    part: list[Asked], search: StudySearch, material: Material, *, cpus: int, seconds: float
) -> dict[ObjectRef, SettingsBatch]:
    """The running task of a part; what cannot even be prepared fails at once, with the reason."""
    first = part[0][1]
    asked_at = time.monotonic()
    shared = len(part) > 1 or shares_distances(first, search.metrics)
    try:
        sample = material.of(first)
        distances = material.distances(first) if shared else None
    except UserError as error:
        for trial_id, _ in part:
            search.fail(trial_id, reason=str(error))
        return {}
    # what ends its process again and again is looked for setting by setting
    task = ray.remote(num_cpus=cpus, max_retries=1 if len(part) > 1 else RETRIES)(_judge)
    plain = [recipe.plain() for _, recipe in part]
    reference = task.remote(
        plain, sample.features, distances, sample.labels, sample.fold_of, list(material.classes), cpus,
        seconds * len(part),
    )  # fmt: skip
    begun = time.monotonic()
    return {reference: SettingsBatch(part, limit=seconds * len(part), waited=begun - asked_at, begun=begun)}


def _tell(
    search: StudySearch, batch: SettingsBatch, reference: ObjectRef, gauges: SearchGauges
) -> Sequence[Asked]:
    """Tells the study what came of a batch; gives what is to be judged again, setting by setting, as the
    process of all of them died."""
    try:
        results = ray.get(reference)
    except (RayError, UserError) as error:
        # what ended the process of many is looked for setting by setting
        decision = decide(_failure(error, batch), forgiven=1 if len(batch.asked) > 1 else 0)
        if decision.action == "retry":
            return batch.asked
        results = [{"failure": decision.reason}] * len(batch.asked)
    seconds = batch.waited + time.monotonic() - batch.begun
    for (trial_id, _), result in zip(batch.asked, results, strict=True):
        if "failure" in result:
            search.fail(trial_id, reason=result["failure"])
        else:
            search.note(trial_id, {name: value for name, value in result.items() if value is not None})
            search.on_trial_complete(trial_id, {**result, "epoch": 1, "finished": True})
        number = search.number(trial_id)
        gauges.epoch(
            number,
            value=result.get(search.metrics[0]),
            seconds=seconds / len(batch.asked),
            wait_share=batch.waited / seconds,
        )
        gauges.ended(number)
    return []


def _failure(error: RayError | UserError, batch: SettingsBatch) -> Failure:
    if isinstance(error, RayTaskError | UserError):
        return Failure(Event.MISTAKE, named(error))
    seconds, tries = time.monotonic() - batch.begun, 1 + RETRIES
    if len(batch.asked) == 1 and isinstance(error, WorkerCrashedError) and seconds >= tries * batch.limit:
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
    labels: Int64[ndarray, "n"],
    fold_of: Int64[ndarray, "n"],
    classes: list[str],
    cpus: int,
    limit: float,
) -> list[dict[str, Any]]:
    """A Ray task: the scores of each setting, or `failure`, the reason why it has none. Its process ends
    where it takes more than `limit` seconds."""
    # nobody handles the signal: the kernel ends the process, whatever it is stuck in
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit)
    recipes = [ClassifierRecipe.load(one, source="trial recipe") for one in plain]
    try:
        if distances is not None:
            return list(judge_svms(recipes, distances, labels=labels, fold_of=fold_of))
        return [
            judge(one, features, labels=labels, fold_of=fold_of, classes=classes, threads=cpus)
            for one in recipes
        ]
    except Exception as error:
        return [{"failure": named(error)}] * len(plain)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
