"""Search: from a search space and data sets to a study on disk, ranked and evaluated."""

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.study import Study as OptunaStudy
from optuna.trial import TrialState
from ray import tune

from fissura.core.errors import SpaceError
from fissura.core.files import check_writable
from fissura.data.cache import default_cache, prepare
from fissura.data.content import content_digest
from fissura.data.sources import parse_datasets
from fissura.jobs.cluster import connected
from fissura.jobs.conclude import conclude
from fissura.jobs.preflight import Hardware, Slots, check_all_weights, check_disk, plan_slots
from fissura.jobs.progress import SearchProgress
from fissura.jobs.schedulers import scheduler_for
from fissura.jobs.searcher import StudySearch
from fissura.jobs.stopping import StopFile, stops_on_signals
from fissura.jobs.trial import TrialActor, TrialContext
from fissura.studies.load import load_space, load_text
from fissura.studies.results import Conclusion
from fissura.studies.space import LoadedSpace
from fissura.studies.study import REASON, Plan, Study, best_trials, find_study, finished

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the caller asks for, before it is checked against what lies on the disk."""

    space: str | None
    data: tuple[str, ...]
    storage: Path
    trials: int | None
    name: str | None
    profile: str
    fixed: dict[str, Any]
    seed: int
    begin: Literal["new", "resume"]
    extend: int


@dataclass(frozen=True)
class SearchResult:
    """A search that ended: its study, the trials by state, the best one, where the results are, why trials
    failed."""

    study: Path
    planned: int
    trials: dict[str, int]
    best: dict[str, Any] | None
    interrupted: bool
    seconds: float
    conclusion: Conclusion
    failures: dict[int, str]


def run_search(
    request: Request,
    *,
    hardware: Hardware,
    cache: Path | None,
    say: Say,
    on_image: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """Runs a search to its end, or to a stop that was asked for.

    `say` is told what happens, a line at a time; `on_image` how many images are prepared, and of how many.

    Raises:
        UserError: anything that would make it fail; nothing was started and nothing written.
    """
    begin = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = cache or default_cache()
    study, plan, space = _plan(request, folder, local=hardware.address is None)
    for note in space.notes:
        say(note)
    check_all_weights(space)
    prepare(
        plan.datasets,
        resize=space.recipe_for(space.paper_point()).data.resize,
        directory=folder,
        on_sample=on_image,
    )
    stop = StopFile(study.path)
    with connected(hardware.address) as resources:
        slots = plan_slots(resources, hardware, trials=plan.trials)
        check_disk(space.recipe_for(space.paper_point()), storage=study.path, slots=slots)
        study.write(plan)
        stop.clear()
        say(
            f"study {study.path}: {plan.trials} trials of {space.definition.recipe}"
            f"{f', profile {plan.profile}' if plan.profile else ''}; {slots.concurrent} at a time,"
            f" {slots.cpus} CPUs and {slots.gpus:g} GPUs each"
        )
        with stops_on_signals(stop):
            optuna_study = _run(plan, space, study, slots, folder, stop=stop, say=say)
            interrupted = stop.requested()
            if interrupted:
                say("stopping: running trials have saved their state; the results so far are being written")
            conclusion = conclude(study, optuna_study, slots=slots, say=say)
        stop.clear()
    return _result(
        study,
        plan,
        space,
        optuna_study,
        conclusion,
        interrupted=interrupted,
        seconds=time.monotonic() - begin,
    )


def _plan(request: Request, cache: Path, *, local: bool) -> tuple[Study, Plan, LoadedSpace]:
    """The study's folder, its plan and its space: as asked, or as the study that is resumed was planned."""
    storage = request.storage.expanduser().resolve()
    if request.name is not None and not re.fullmatch(r"\w[\w. -]*", request.name):
        raise SpaceError(
            f"--name {request.name}: a study's name is that of one folder in --storage; write it in letters,"
            " digits, `_`, `-` and `.`"
        )
    check_writable(storage)
    if request.begin == "resume" or request.extend:
        study = _resumed(request, storage)
        plan = study.plan()
        plan = plan.model_copy(update={"trials": plan.trials + request.extend})
        space = load_text(
            plan.space, source=f"{study.path / 'study.json'}", profile=plan.profile, fixed=plan.fixed
        )
        if content_digest(plan.datasets, directory=cache) != plan.content:
            raise SpaceError(
                f"{study.path}: the images or masks changed since the study began, so old and new trials"
                f" could not be"
                " compared; put them back, or begin a new study under another --name"
            )
        return study, plan, space
    if request.space is None:
        raise SpaceError(
            "name a search space, such as `unet_backbones`, or a YAML file; or go on with --resume"
        )
    space = _load(request.space, request, local=local)
    datasets = parse_datasets(request.data)
    study = Study(storage / (request.name or space.name))
    if study.exists:
        raise SpaceError(
            f"{study.path}: a study lies here already; go on with --resume, add trials with --extend N, or"
            f" choose another"
            " --name"
        )
    plan = Plan(
        name=study.path.name,
        space=space.text,
        profile=space.profile,
        fixed=request.fixed,
        datasets=datasets,
        content=content_digest(datasets, directory=cache),
        trials=request.trials or space.definition.trials,
        seed=request.seed,
    )
    return study, plan, space


def _load(space_name: str, request: Request, *, local: bool) -> LoadedSpace:
    if request.profile != "auto":
        profile = None if request.profile == "none" else request.profile
        return load_space(space_name, profile=profile, fixed=request.fixed)
    space = load_space(space_name)
    import torch

    wanted = "cpu" if local and not torch.cuda.is_available() else "gpu"
    profile = wanted if wanted in space.definition.profiles else None
    return load_space(space_name, profile=profile, fixed=request.fixed)


def _resumed(request: Request, storage: Path) -> Study:
    """The study to go on with.

    Raises:
        SpaceError: there is none, or the request asks for something else than what it was planned for.
    """
    named = Study(storage / (request.name or Path(request.space or "").stem))
    study = named if request.name or named.exists else find_study(storage)
    plan = study.plan()
    problems = []
    if request.data and parse_datasets(request.data) != plan.datasets:
        held = ", ".join(f"{dataset.kind}:{dataset.root}" for dataset in plan.datasets)
        problems.append(f"--data: the study was planned for {held}; leave --data out, or begin a new study")
    if request.trials is not None and request.trials != plan.trials:
        problems.append(
            f"--trials {request.trials}: the study was planned for {plan.trials}; leave it out, or add with"
            f" --extend N"
        )
    if request.fixed and request.fixed != plan.fixed:
        problems.append(
            f"--set: the study was planned with {plan.fixed}; leave --set out, or begin a new study"
        )
    if request.profile not in ("auto", plan.profile or "none"):
        problems.append(
            f"--profile {request.profile}: the study was planned with {plan.profile or 'none'}; leave it out"
        )
    if (
        request.space is not None
        and load_space(request.space, profile=plan.profile, fixed=plan.fixed).definition
        != load_text(plan.space, source="study.json", profile=plan.profile, fixed=plan.fixed).definition
    ):
        problems.append(
            f"{request.space}: differs from the space that the study began with; begin a new study"
        )
    if problems:
        raise SpaceError(*(f"{study.path}: {problem}" for problem in problems))
    return study


def _run(
    plan: Plan, space: LoadedSpace, study: Study, slots: Slots, cache: Path, *, stop: StopFile, say: Say
) -> OptunaStudy:
    """Runs the trials that are still to do."""
    context = TrialContext(
        study=study.path, datasets=plan.datasets, content=plan.content, cache=cache, cpus=slots.cpus
    )
    storage = study.storage()
    search = StudySearch(
        space,
        storage=storage,
        study_name=plan.name,
        seed=plan.seed,
        content=plan.content,
        context=context.plain(),
        stop_requested=stop.requested,
    )
    earlier = finished(search.study)
    todo = plan.trials - len(earlier)
    if todo <= 0:
        say(f"all {plan.trials} trials are done; add some with --extend N")
        return search.study
    if earlier:
        say(f"{len(earlier)} trials are done, {todo} to do")
    progress = SearchProgress(search, study, total=plan.trials, say=say)
    scratch = Path(tempfile.mkdtemp(prefix="fissura-tune-"))
    try:
        tune.Tuner(
            tune.with_resources(TrialActor, {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler_for(
                    space, epochs=space.recipe_for(space.paper_point()).epochs, earlier=earlier
                ),
                num_samples=todo,
                max_concurrent_trials=slots.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[progress],
                # a crash that comes back is a failed trial; a lost node is not
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(progress.standing())
    return search.study


def _result(
    study: Study,
    plan: Plan,
    space: LoadedSpace,
    optuna_study: OptunaStudy,
    conclusion: Conclusion,
    *,
    interrupted: bool,
    seconds: float,
) -> SearchResult:
    done = finished(optuna_study)
    states = Counter(trial.state.name.lower() for trial in done)
    best = best_trials(optuna_study)[:1]
    metrics = [objective.metric for objective in space.objectives]
    return SearchResult(
        study=study.path,
        planned=plan.trials,
        trials=dict(states),
        best={
            "trial": best[0].number,
            "values": dict(zip(metrics, best[0].values, strict=True)),
            "parameters": best[0].params,
        }
        if best
        else None,
        interrupted=interrupted,
        seconds=seconds,
        conclusion=conclusion,
        failures={t.number: t.user_attrs.get(REASON, "") for t in done if t.state == TrialState.FAIL},
    )
