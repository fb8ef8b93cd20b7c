"""Rebuilds lost or damaged files of a study from the folders of its runs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fissura.core.brief import Brief
from fissura.core.documents import read_json, read_sealed
from fissura.core.errors import DataError, SpaceError, UserError
from fissura.core.files import replacing
from fissura.core.problems import summed_up
from fissura.core.progress import Say
from fissura.records.run_files import MANIFEST
from fissura.records.trial_attributes import PAPER, REASON, RUN, SKIPPED, SWEPT
from fissura.spaces.space import LoadedSpace
from fissura.spaces.sweep import run_of
from fissura.studies.database import DATABASE, FILE_SUFFIXES, database_url
from fissura.studies.study import PLAN, SPACE, Plan, Study
from fissura.studies.trial_records import RECORDS, read_records
from fissura.training.checkpoint import METRICS, RECIPE, STATE, read_metrics

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, repr=False)
class Repaired(Brief):
    """What `repair` wrote anew, what it kept aside, and the trials of a database that it rebuilt by state."""

    study: Path
    written: list[Path] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)
    trials: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The study, and what was done to it."""
        if not self.written:
            return [f"study {self.study}: its own files are whole; nothing was changed"]
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.trials.items()))
        return [
            f"study {self.study}",
            *(f"  written anew: {path}" for path in self.written),
            *([f"  trials: {states}"] if states else []),
            *(f"  kept aside: {path}" for path in self.aside),
        ]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each file."""
        kinds = (("written", self.written), ("kept aside", self.aside))
        return [{"file": str(path), "became": kind} for kind, paths in kinds for path in paths]


def repair(study: Study, *, say: Say) -> Repaired:
    """Writes the files of the study itself anew where they are lost or damaged: the plan from its copy, the
    space from the plan, the database from the trials that stand in the folders of the runs. What is damaged
    is kept aside; the runs are not touched. `say` is told of what cannot be taken over.

    Raises:
        SpaceError: no study lies there, another process searches it, or the plan is lost in both places.
    """
    if not study.exists:
        study.plan()
    done = Repaired(study.path)
    with study.claimed():
        plan = _plan(study, done)
        space = study.path / SPACE
        if not space.is_file() or space.read_bytes() != plan.space.encode():
            _set_aside(space, done)
            study.write(plan)
            done.written.append(space)
        try:
            study.load()
        except UserError as error:
            if study.has_begun:
                say(error.problems[0])
                _rebuild(study, plan, done, say=say)
    return done


def _plan(study: Study, done: Repaired) -> Plan:
    """The plan, from whichever place it is whole in; written in both."""
    loaders = {study.path / PLAN: Plan.load_file, study.plan_copy: _sealed_plan}
    plans: dict[Path, Plan] = {}
    problems: list[str] = []
    for path, load in loaders.items():
        try:
            plans[path] = load(path)
        except UserError as error:
            problems += error.problems[:1]
    if not plans:
        raise SpaceError(
            *problems,
            f"{study.path}: the plan is lost; search again under another --name, and move the folders of"
            " runs/ there: what was trained is not trained again",
        )
    plan = next(iter(plans.values()))
    faulty = [path for path in loaders if plans.get(path) != plan]
    for path in faulty:
        _set_aside(path, done)
    if faulty:
        study.write(plan)
        done.written.extend(faulty)
    return plan


def _sealed_plan(path: Path) -> Plan:
    return Plan.load(read_sealed(path, remedy=""), source=str(path))


def _set_aside(path: Path, done: Repaired) -> None:
    """Moves what stands at `path` out of the way, to a name that nothing has."""
    if path.exists():
        names = (path.with_name(f"{path.name}.damaged{f'-{n}' if n else ''}") for n in range(10_000))
        target = next(name for name in names if not name.exists())
        path.rename(target)
        done.aside.append(target)


def _rebuild(study: Study, plan: Plan, done: Repaired, *, say: Say) -> None:
    """Writes a database of the trials that stand in the folders of runs."""
    import optuna
    from optuna.storages import RDBStorage

    space = plan.load_space(study.path)
    trials = _numbered(study, plan, space, say=say)
    path = study.path / DATABASE
    for suffix in FILE_SUFFIXES:
        _set_aside(path.with_name(f"{DATABASE}{suffix}"), done)
    with replacing(path) as scratch:
        storage = RDBStorage(database_url(scratch))
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the program says itself what it repaired
        rebuilt = optuna.create_study(
            storage=storage,
            study_name=plan.name,
            directions=[
                "minimize" if objective.mode == "min" else "maximize" for objective in space.objectives
            ],
        )
        for trial in trials:
            rebuilt.add_trial(trial)
            if SKIPPED not in trial.user_attrs:
                name = trial.state.name.lower()
                done.trials[name] = done.trials.get(name, 0) + 1
        storage.remove_session()
        storage.engine.dispose()
    done.written.append(path)


def _numbered(study: Study, plan: Plan, space: LoadedSpace, *, say: Say) -> "list[FrozenTrial]":
    """The trials under the numbers that they had; those without a record after all others. A number that
    nobody has is taken by a trial that counts as never run."""
    from optuna.trial import TrialState, create_trial

    records = read_records(study.runs)
    for problem in summed_up(records.faults):
        say(problem)
    known = {number: record.trial() for number, record in records.found.items()}
    recorded = {trial.user_attrs.get(RUN) for trial in known.values()}
    runs = sorted(path for path in study.runs.glob("*/") if not path.name.startswith("."))
    others = [run for run in runs if run.name not in recorded]
    lost = {SKIPPED: "lost with the database", REASON: "skipped: lost with the database"}
    trials = [
        known.get(number) or create_trial(state=TrialState.FAIL, user_attrs=lost)
        for number in range(max(known, default=-1) + 1)
    ]
    return trials + list(_without_record(others, plan, space, say=say))


def _without_record(runs: list[Path], plan: Plan, space: LoadedSpace, *, say: Say) -> "Iterator[FrozenTrial]":
    """The trials of runs that hold no record, the paper's own first, then as they were finished."""
    paper = space.recipe_for(space.paper_point()).run_id(plan.content)
    swept = {run_of(space, path, value, content=plan.content): path for path, value in plan.swept}
    for run in sorted(runs, key=lambda run: (run.name != paper, _finished(run), run.name)):
        marks = {RUN: run.name} | ({PAPER: True} if run.name == paper else {})
        marks |= {SWEPT: swept[run.name]} if run.name in swept else {}
        try:
            yield _trial_of(run, plan, space, marks=marks)
        except UserError as error:
            say(f"left out {run}: {error.problems[0]}")


def _finished(run: Path) -> float:
    path = run / MANIFEST
    return path.stat().st_mtime if path.is_file() else float("inf")


def _trial_of(run: Path, plan: Plan, space: LoadedSpace, *, marks: dict[str, Any]) -> "FrozenTrial":
    """The trial that a run's own files tell of: its parameters from the recipe, its values from the metrics;
    one that is not finished goes on.

    Raises:
        UserError: the files are damaged, or of no trial of this study.
    """
    from optuna.trial import FixedTrial, TrialState, create_trial

    recipe = type(space.recipe).load_file(run / RECIPE)
    point = space.point_of(recipe)
    if recipe.run_id(plan.content) != run.name or space.recipe_for(point) != recipe:
        raise DataError(f"its recipe is none of the study's space; {RECORDS} has no trial of it")
    fixed = FixedTrial(point)
    space.suggest(fixed)
    values: list[float] | None = None
    if (run / METRICS).is_file():
        plain = read_json(run / METRICS, remedy="restore it from a copy")
        if "history" in plain:
            progress, history = read_metrics(run)
            plain = history[progress.best_epoch - 1]
        names = [objective.metric for objective in space.objectives]
        values = [plain.get(name, math.nan) for name in names]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise DataError(f"{run / METRICS}: holds no numbers of {', '.join(names)}; the run itself stands")
    elif not (run / STATE).is_file():
        raise DataError("holds neither the metrics of a finished training nor the state of one to go on with")
    return create_trial(
        state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
        values=values,
        params=fixed.params,
        distributions=fixed.distributions,
        user_attrs=marks,
    )
