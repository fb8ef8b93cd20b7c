"""Makes the plan of a study, new or resumed, from a checked request."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fissura.core.errors import DataError, SpaceError
from fissura.core.files import check_writable
from fissura.core.tasks import Task, task_named
from fissura.data.datasets import Named
from fissura.data.sources import ImageData, digest_sources, moved_to, root_of
from fissura.records.trial_attributes import RUN, SKIPPED
from fissura.spaces.load import load_space
from fissura.spaces.space import LoadedSpace
from fissura.spaces.sweep import plan_sweep, run_of
from fissura.studies.study import Plan, Study, find_study


@dataclass(frozen=True)
class Request:
    """A request, before it is checked against the files on disk."""

    space: str | None
    data: "tuple[Named, ...]"
    storage: Path
    trials: int | None
    name: str | None
    profile: str
    fixed: dict[str, Any]
    seed: int
    begin: Literal["new", "resume"]
    extend: int
    sweep: int | None = None
    over: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()


def make_plan(request: Request, cache: Path, *, profile: str) -> tuple[Study, Plan, LoadedSpace]:
    """The study's folder, its plan and its space: as asked, or as the study that is resumed was planned.

    `profile` is what "auto" stands for, where the space has it. Nothing is written.

    Raises:
        UserError: the request breaks a rule, or does not fit what lies on the disk.
    """
    storage = request.storage.expanduser().resolve()
    resumes = request.begin == "resume" or request.extend > 0
    if request.name is not None and not resumes and not re.fullmatch(r"\w[\w. -]*", request.name):
        raise SpaceError(
            f"--name {request.name}: a study's name is that of one folder in --storage; write it in letters,"
            " digits, `_`, `-` and `.`"
        )
    if request.sweep is not None and request.trials is not None:
        raise SpaceError(
            f"--trials {request.trials}: the number of trials follows from --sweep; leave --trials out, and"
            " have the sampler add others with --extend N"
        )
    if request.over and request.sweep is None:
        raise SpaceError(f"--over {request.over[0]}: says what --sweep varies; give --sweep N too")
    check_writable(storage)
    if resumes:
        study = _resumed(request, storage)
        plan = study.plan()
        study.check_trials()
        space = plan.load_space(study.path)
        datasets = _current_datasets(
            study, plan, request.data, task=task_named(space.recipe.task), cache=cache
        )
        plan = plan.model_copy(update={"trials": plan.trials + request.extend, "datasets": datasets})
        return study, *_with_sweep(request, plan, space, taken=_known_runs(study, plan, space))
    if request.space is None:
        raise SpaceError(
            "name a search space, such as `unet_backbones`, or a YAML file; or go on with --resume"
        )
    space = _load(request.space, request, auto=profile).kept_by_objective()
    datasets = task_named(space.recipe.task).inputs.parse(request.data)
    study = Study(storage / (request.name or space.name))
    if study.exists:
        raise SpaceError(
            f"{study.path}: a study lies here already; go on with --resume, add trials with --extend N, or"
            " choose another --name"
        )
    plan = Plan(
        name=study.path.name,
        space=space.text,
        profile=space.profile,
        fixed=request.fixed,
        datasets=datasets,
        content=digest_sources(datasets, directory=cache),
        trials=1 if request.sweep is not None else request.trials or space.definition.trials,
        seed=request.seed,
        objectives=[objective.metric for objective in space.objectives] if request.objectives else (),
        kept_by=space.kept_by,
    )
    plan, space = _with_sweep(request, plan, space, taken=set())
    if request.sweep is not None and not plan.sweeps:
        raise SpaceError(
            f"--sweep {request.sweep}: no parameter of {space.source} has another value than the paper's"
            f" {f'under --profile {plan.profile}' if plan.profile else 'here'}; search one"
        )
    return study, plan, space


def _current_datasets(
    study: Study,
    plan: Plan,
    data: Sequence[Named],
    *,
    task: Task,
    cache: Path,
) -> tuple[ImageData, ...]:
    """The data sets of a study where they lie now: of what it was planned for, wherever that was.

    Raises:
        SpaceError: they hold something else.
        DataError: they cannot be read.
    """
    planned_names = ", ".join(map(str, plan.datasets))
    if not data:
        try:
            content = digest_sources(plan.datasets, directory=cache)
        except DataError as error:
            remedy = f"{study.path}: if its images were moved, say where they are by --data KIND:ROOT"
            raise DataError(*error.problems, remedy) from None
        if content != plan.content:
            raise SpaceError(
                f"{study.path}: the images or masks changed since the study began ({planned_names} holds"
                f" {content}, the study's are {plan.content}), so old and new trials could not be compared;"
                " put them back, or begin a new study under another --name"
            )
        return plan.datasets
    new_datasets = task.inputs.parse(data)
    # the same files under the name of another kind, or without an option, are read as the study reads them
    if len(new_datasets) == len(plan.datasets):
        moved = tuple(
            moved_to(planned, root_of(new)) for planned, new in zip(plan.datasets, new_datasets, strict=True)
        )
        with contextlib.suppress(DataError):
            if digest_sources(moved, directory=cache) == plan.content:
                return moved
    content = digest_sources(new_datasets, directory=cache)
    if content == plan.content:
        return new_datasets
    raise SpaceError(
        f"{study.path}: --data: {', '.join(map(str, new_datasets))} holds {content}, and the study's images"
        f" are {plan.content} ({planned_names}); name the same images, or begin a new study"
    )


def _with_sweep(
    request: Request, plan: Plan, space: LoadedSpace, *, taken: set[str]
) -> tuple[Plan, LoadedSpace]:
    """The plan with the sweep that is asked for, if it adds a trial; the space with a note about it."""
    if request.sweep is None:
        return plan, space
    sweep, note = plan_sweep(
        space, values=request.sweep, over=request.over, content=plan.content, taken=taken
    )
    sweeps = (*plan.sweeps, sweep) if sweep.points else plan.sweeps
    trials = plan.trials + len(sweep.points)
    plan = plan.model_copy(update={"sweeps": sweeps, "trials": trials})
    return plan, replace(space, notes=(*space.notes, note))


def _known_runs(study: Study, plan: Plan, space: LoadedSpace) -> set[str]:
    """The runs that a further sweep need not train.

    A trial that the scheduler stopped has no value to show, so a sweep trains its configuration again.
    """
    from optuna.trial import TrialState

    runs = {run_of(space, path, value, content=plan.content) for path, value in plan.swept}
    if study.has_begun:
        runs |= {
            trial.user_attrs[RUN]
            for trial in study.load().get_trials(deepcopy=False)
            if RUN in trial.user_attrs
            and SKIPPED not in trial.user_attrs
            and trial.state != TrialState.PRUNED
        }
    return runs


def _load(name: str, request: Request, *, auto: str) -> LoadedSpace:
    profile = None if request.profile == "none" else request.profile
    if profile == "auto":
        profile = auto if auto in load_space(name).definition.profiles else None
    return load_space(name, profile=profile, fixed=request.fixed, objectives=request.objectives)


def _resumed(request: Request, storage: Path) -> Study:
    """The study to go on with.

    Raises:
        SpaceError: there is none, or the request asks for something else than what it was planned for.
    """
    named = Study(storage / (request.name or Path(request.space or "").stem))
    study = named if request.name or named.exists else find_study(storage)
    plan = study.plan()
    problems = []
    space = plan.load_space(study.path)
    if request.trials is not None and request.trials != plan.trials:
        problems.append(
            f"--trials {request.trials}: the study was planned for {plan.trials}; leave it out, or add with"
            " --extend N"
        )
    if request.fixed and request.fixed != plan.fixed:
        problems.append(
            f"--set: the study was planned with {plan.fixed}; leave --set out, or begin a new study"
        )
    if request.profile not in ("auto", plan.profile or "none"):
        problems.append(
            f"--profile {request.profile}: the study was planned with {plan.profile or 'none'}; leave it out"
        )
    metrics = tuple(objective.metric for objective in space.objectives)
    if request.objectives and request.objectives != metrics:
        problems.append(
            f"--objective: the study was planned for {', '.join(metrics)}; leave it out, or begin a new study"
        )
    if (
        request.space is not None
        and load_space(
            request.space, profile=plan.profile, fixed=plan.fixed, objectives=plan.objectives
        ).definition
        != space.definition
    ):
        problems.append(
            f"{request.space}: differs from the space that the study began with; begin a new study"
        )
    if problems:
        raise SpaceError(*(f"{study.path}: {problem}" for problem in problems))
    return study
