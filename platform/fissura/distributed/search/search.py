"""Search: from a search space and data sets to a study on disk, ranked and evaluated."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.study import Study as OptunaStudy
from ray import tune
from ray.tune.schedulers import TrialScheduler

from fissura.core.errors import ResourceError
from fissura.core.progress import Say
from fissura.data.cache import default_cache
from fissura.data.content import notes_of
from fissura.data.trainable import prepare_training
from fissura.distributed.cluster import connected, this_machine
from fissura.distributed.preflight import (
    Hardware,
    Slots,
    check_all_weights,
    check_batches,
    check_disk,
    plan_slots,
)
from fissura.distributed.search.conclude import conclude
from fissura.distributed.search.failures import LostNodes
from fissura.distributed.search.hang_watch import EpochTimeout, HangWatch
from fissura.distributed.search.progress import SearchProgress
from fissura.distributed.search.schedulers import scheduler_for
from fissura.distributed.search.search_classifiers import search_classifiers
from fissura.distributed.search.search_result import SearchResult, outcome
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.study_log import StudyLog
from fissura.distributed.search.trial import TrialActor, TrialContext
from fissura.distributed.search.trial_workers import (
    ACTOR_RESOURCES,
    FreesWorkers,
    WorkersContext,
    WorkersTrial,
)
from fissura.distributed.search.waiting import WaitingTrials
from fissura.distributed.stopping import StopFile, stops_on_signals
from fissura.segmentation.recipe import segmenter_of
from fissura.spaces.space import LoadedSpace
from fissura.studies.plan import Request, make_plan
from fissura.studies.sources import change_of, masked
from fissura.studies.study import Plan, Study, finished
from fissura.training.runtime import pick_device


def run_search(
    request: Request,
    *,
    hardware: Hardware,
    cache: Path | None,
    say: Say,
    trial_timeout: float | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """Runs a search to its end, or to a stop that was asked for.

    A trial without a finished epoch for `trial_timeout` seconds is ended; None: see `EpochTimeout`.
    `say` is told what happens, a line at a time; `on_image` how many images are prepared, and of how many.

    Raises:
        UserError: anything that would make it fail; nothing was started and nothing written.
    """
    begin = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = cache or default_cache()
    local_cpu = hardware.address is None and pick_device("auto").type == "cpu"
    study, plan, space = make_plan(request, folder, profile="cpu" if local_cpu else "gpu")
    for note in space.notes:
        say(note)
    if space.recipe.task == "classification":
        if hardware.workers_per_trial > 1:
            raise ResourceError(
                f"--workers-per-trial {hardware.workers_per_trial}: a classifier is fitted on one node; leave"
                " it out (backbones and features use all nodes as it is)"
            )
        return search_classifiers(study, plan, space, hardware, folder, trial_timeout=trial_timeout, say=say)
    if hardware.address is None:
        # what does not fit is refused before a Ray is started
        plan_slots(this_machine(), hardware, trials=plan.trials)
    check_all_weights(space)
    datasets = masked(plan.datasets)
    prepared = prepare_training(
        datasets,
        resize=segmenter_of(space.recipe_for(space.paper_point())).data.resize,
        directory=folder,
        content=plan.content,
        on_sample=on_image,
    )
    for remark in [*notes_of(datasets), *prepared.remarks]:
        say(remark)
    stop = StopFile(study.path)
    with study.claimed(), connected(hardware.address, log=StudyLog(study).note) as resources:
        slots = plan_slots(resources, hardware, trials=plan.trials)
        check_disk(segmenter_of(space.recipe_for(space.paper_point())), storage=study.path, slots=slots)
        check_batches(space, workers=slots.workers)
        study.write(plan)
        stop.clear()
        say(
            f"study {study.path}: {plan.trials} trials of {space.definition.recipe}"
            f"{f', profile {plan.profile}' if plan.profile else ''}; {slots.concurrent} at a time,"
            f"{f' {slots.workers} workers each, of' if slots.workers > 1 else ''}"
            f" {slots.cpus} CPUs and {slots.gpus:g} GPUs each"
        )
        with stops_on_signals(stop):
            optuna_study = _run(
                plan, space, study, slots, folder, stop=stop, say=say, trial_timeout=trial_timeout
            )
            interrupted = stop.requested()
            if interrupted:
                say("stopping: running trials have saved their state; the results so far are being written")
            conclusion = conclude(study, optuna_study, slots=slots, say=say)
        if change := change_of(plan.datasets, content=plan.content, directory=folder):
            say(change)
        stop.clear()
    return outcome(
        study,
        plan,
        space,
        optuna_study,
        conclusion,
        interrupted=interrupted,
        seconds=time.monotonic() - begin,
    )


def _run(
    plan: Plan,
    space: LoadedSpace,
    study: Study,
    slots: Slots,
    cache: Path,
    *,
    stop: StopFile,
    say: Say,
    trial_timeout: float | None,
) -> OptunaStudy:
    """Runs the trials that are still to do."""
    context = TrialContext(
        study=study.path, datasets=plan.datasets, content=plan.content, cache=cache, cpus=slots.cpus
    )
    trainable = tune.with_resources(TrialActor, {"cpu": slots.cpus, "gpu": slots.gpus})
    if slots.workers > 1:
        context = WorkersContext(**dict(context), workers=slots.workers, gpu=slots.gpus > 0)
        trainable = tune.with_resources(WorkersTrial, ACTOR_RESOURCES)
    storage = study.storage(on_wait=lambda reason: say(reason) if reason else None)
    search = StudySearch(
        space,
        storage=storage,
        study_name=plan.name,
        seed=plan.seed,
        content=plan.content,
        context=context.plain(),
        stop_requested=stop.requested,
        sweep=plan.swept,
        on_end=study.keep_record,
    )
    study.keep_missing(search.study)
    earlier = finished(search.study)
    todo = plan.trials - len(earlier)
    if todo <= 0:
        say(f"all {plan.trials} trials are done; add some with --extend N")
        return search.study
    if earlier:
        say(f"{len(earlier)} trials are done, {todo} to do")
    scheduler = scheduler_for(space, epochs=space.longest, earlier=earlier)
    run_trials(
        trainable,
        search,
        study,
        todo=todo,
        scheduler=scheduler,
        concurrent=slots.concurrent,
        total=plan.trials,
        say=say,
        trial_timeout=trial_timeout,
    )
    return search.study


def run_trials(
    trainable: type[tune.Trainable],
    search: StudySearch,
    study: Study,
    *,
    todo: int,
    scheduler: TrialScheduler,
    concurrent: int,
    total: int,
    say: Say,
    trial_timeout: float | None = None,
) -> None:
    """Runs `todo` more trials, of `total` in all, `concurrent` at a time, by Ray Tune; each is a `trainable`
    with the promises of `TrialActor`, in actors that serve trial after trial."""
    waiting = WaitingTrials(study.path).reasons
    progress = SearchProgress(search, study, total=total, say=say, waiting=waiting)
    hangs = HangWatch(search, patience=EpochTimeout(trial_timeout), waiting=waiting)
    scratch = Path(tempfile.mkdtemp(prefix="fissura-tune-"))
    search.allow(todo)
    try:
        with progress.standing.starting():
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=scheduler,
                    num_samples=-1,  # the search counts: it takes up again what Tune gives up
                    max_concurrent_trials=concurrent,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[progress, hangs, FreesWorkers(study.path), LostNodes()],
                    # the run directory is the checkpoint; Tune's own would lie in a folder of this machine,
                    # which no other node sees
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    # a crash that comes back is a failed trial; a node that is lost or taken away is not
                    failure_config=tune.FailureConfig(max_failures=1),
                ),
            ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(progress.standing.line())
