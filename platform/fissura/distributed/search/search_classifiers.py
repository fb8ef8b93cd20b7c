"""A search of classifiers: backbones and features first, then settings in batches, then the best fitted."""

import time
from pathlib import Path

from optuna.study import Study as OptunaStudy

from fissura.core.progress import Say
from fissura.data.labelled import check_classes
from fissura.distributed.cluster import connected, this_machine
from fissura.distributed.preflight import Hardware, Slots, check_all_backbones, plan_slots
from fissura.distributed.search.classifier_trials import SETTING_SECONDS, judge_all
from fissura.distributed.search.conclude_classifiers import conclude_classifiers
from fissura.distributed.search.search_result import SearchResult, outcome
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.status_line import StatusLine
from fissura.distributed.search.study_log import StudyLog
from fissura.distributed.search.trial_inputs import Material
from fissura.distributed.stopping import StopFile, stops_on_signals
from fissura.spaces.space import Adaptive, LoadedSpace
from fissura.studies.sources import change_of, labelled
from fissura.studies.study import Plan, Study, finished


def search_classifiers(
    study: Study,
    plan: Plan,
    space: LoadedSpace,
    hardware: Hardware,
    cache: Path,
    *,
    trial_timeout: float | None,
    say: Say,
) -> SearchResult:
    """Runs a search of classifiers to its end, or to a stop that was asked for. A setting that takes longer
    than `trial_timeout` seconds (None: an hour) fails.

    Raises:
        UserError: anything that would make it fail; no trial was begun.
    """
    begin = time.monotonic()
    check_classes(labelled(plan.datasets), directory=cache)
    check_all_backbones(space)
    if hardware.address is None:
        plan_slots(this_machine(), hardware, trials=plan.trials)
    stop = StopFile(study.path)
    with study.claimed(), connected(hardware.address, log=StudyLog(study).note) as resources:
        slots = plan_slots(resources, hardware, trials=plan.trials)
        study.write(plan)
        stop.clear()
        say(
            f"study {study.path}: {plan.trials} trials of {space.definition.recipe}"
            f"{f', profile {plan.profile}' if plan.profile else ''}; {slots.concurrent} batches at a time"
        )
        material = Material(
            labelled(plan.datasets),
            storage=study.path.parent,
            cache=cache,
            content=plan.content,
            workers=1,
            slots=slots,
            address=hardware.address,
            say=say,
        )
        with stops_on_signals(stop):
            trials = _run(
                plan, space, study, material, slots, trial_timeout=trial_timeout, stop=stop, say=say
            )
            interrupted = stop.requested()
            if interrupted:
                say("stopping: the results so far are being written")
            conclusion = conclude_classifiers(study, trials, space, material, cpus=slots.cpus, say=say)
        if change := change_of(plan.datasets, content=plan.content, directory=cache):
            say(change)
        stop.clear()
    seconds = time.monotonic() - begin
    return outcome(study, plan, space, trials, conclusion, interrupted=interrupted, seconds=seconds)


def _run(
    plan: Plan,
    space: LoadedSpace,
    study: Study,
    material: Material,
    slots: Slots,
    *,
    trial_timeout: float | None,
    stop: StopFile,
    say: Say,
) -> OptunaStudy:
    """Judges the settings that are still to do."""
    search = StudySearch(
        space,
        storage=study.storage(on_wait=lambda reason: say(reason) if reason else None),
        study_name=plan.name,
        seed=plan.seed,
        content=plan.content,
        context={},
        stop_requested=stop.requested,
        sweep=plan.swept,
        on_end=study.keep_record,
    )
    study.keep_missing(search.study)
    done = len(finished(search.study))
    if done >= plan.trials:
        say(f"all {plan.trials} trials are done; add some with --extend N")
        return search.study
    if done:
        say(f"{done} trials are done, {plan.trials - done} to do")
    standing = StatusLine(search, total=plan.trials, unit="settings", say=say)
    with standing.starting():
        judge_all(
            search,
            material,
            todo=plan.trials - done,
            concurrent=slots.concurrent,
            cpus=slots.cpus,
            stop=stop,
            standing=standing,
            sequential=isinstance(space.definition.sampler, Adaptive),
            seconds=trial_timeout or SETTING_SECONDS,
        )
    say(standing.line())
    return search.study
