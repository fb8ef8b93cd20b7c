"""Runs a search: from a search space and data sets to a study on disk, ranked and evaluated."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.study import Study as OptunaStudy
from ray import tune
from ray.tune.schedulers import TrialScheduler

from fissura.core.progress import Say
from fissura.core.tasks import task_named
from fissura.core.text import count
from fissura.data.cache import default_cache
from fissura.data.sources import change_of
from fissura.distributed.cluster import connected, this_machine
from fissura.distributed.preflight import Hardware, check_all_weights, plan_slots
from fissura.distributed.search.failures import LostNodes
from fissura.distributed.search.hang_watch import EpochTimeout, HangWatch
from fissura.distributed.search.progress import SearchProgress
from fissura.distributed.search.search_result import SearchResult, outcome
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.study_log import StudyLog
from fissura.distributed.search.task_trials import EVALUATED_RUNS, SearchTerms, TaskTrials
from fissura.distributed.search.trial_workers import FreesWorkers
from fissura.distributed.search.waiting import WaitingTrials
from fissura.distributed.stopping import StopFile, stops_on_signals
from fissura.records.study_ranking import finished, runs_to_keep
from fissura.studies.plan import Request, make_plan
from fissura.studies.results import write_results
from fissura.studies.study import Study
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
    """Runs a search to its end, or to a requested stop.

    A trial that finishes no epoch for `trial_timeout` seconds fails; None: see `EpochTimeout`. Reports events
    through `say`; calls `on_image` with the number of prepared images and their total.

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
    stop = StopFile(study.path)
    terms = SearchTerms(study, plan, space, hardware, folder, stop, trial_timeout, say, on_image)
    task = task_named(space.recipe.task).trials(terms)
    if hardware.address is None:
        # checked before Ray starts
        plan_slots(this_machine(), hardware, trials=plan.trials)
    check_all_weights(space)
    task.prepare()
    with study.claimed(), connected(hardware.address, log=StudyLog(study).note, say=say) as resources:
        at_a_time = task.place(plan_slots(resources, hardware, trials=plan.trials))
        study.write(plan)
        stop.clear()
        say(
            f"study {study.path}: {count(plan.trials, 'trial')} of {space.definition.recipe}"
            f"{f', profile {plan.profile}' if plan.profile else ''}; {at_a_time}"
        )
        with stops_on_signals(stop):
            trials = _run(terms, task)
            interrupted = stop.requested()
            if interrupted:
                say("stopping: what was running can be resumed; the results so far are being written")
            results = task.evaluate(trials, runs_to_keep(trials, best=EVALUATED_RUNS))
            conclusion = write_results(study, trials, results=results, say=say)
        if change := change_of(plan.datasets, content=plan.content, directory=folder):
            say(change)
        stop.clear()
    seconds = time.monotonic() - begin
    return outcome(study, plan, space, trials, conclusion, interrupted=interrupted, seconds=seconds)


def _run(terms: SearchTerms, task: TaskTrials) -> OptunaStudy:
    """Runs the remaining trials."""
    plan, study, say = terms.plan, terms.study, terms.say
    search = StudySearch(
        terms.space,
        storage=study.storage(on_wait=lambda reason: say(reason) if reason else None),
        study_name=plan.name,
        seed=plan.seed,
        content=plan.content,
        context=task.context(),
        stop_requested=terms.stop.requested,
        sweep=plan.swept,
        on_end=study.keep_record,
    )
    study.keep_missing(search.study)
    done = len(finished(search.study))
    if done >= plan.trials:
        say("all trials are done; add some with --extend N")
        return search.study
    if done:
        say(f"{done} trials are done, {plan.trials - done} to do")
    task.run(search, todo=plan.trials - done)
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
    """Runs `todo` more trials, of `total` in all, `concurrent` at a time, by Ray Tune; `trainable` keeps the
    contract of `TrialActor`, and its actors run trial after trial."""
    waiting = WaitingTrials(study.path).reasons
    progress = SearchProgress(search, study, total=total, say=say, waiting=waiting)
    hangs = HangWatch(search, timeout=EpochTimeout(trial_timeout), waiting=waiting)
    scratch = Path(tempfile.mkdtemp(prefix="fissura-tune-"))
    search.allow(todo)
    try:
        with progress.status_line.starting():
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
                    # a repeated crash fails the trial; a lost or preempted node does not
                    failure_config=tune.FailureConfig(max_failures=1),
                ),
            ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(progress.status_line.line())
