"""Checks that a run, or a study with all of its runs, is as written."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fissura.core.brief import Brief
from fissura.core.documents import read_sealed
from fissura.core.errors import DataError, UserError
from fissura.core.files import near
from fissura.core.problems import summed_up
from fissura.core.text import count
from fissura.records.run_files import MANIFEST, RESTORE, faults_of, read_manifest
from fissura.records.trial_attributes import RUN
from fissura.studies.database import DATABASE
from fissura.studies.study import PLAN, SPACE, Plan, Study
from fissura.studies.trial_records import TrialRecord, read_records
from fissura.training.checkpoint import METRICS, RECIPE

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, repr=False)
class Verified(Brief):
    """What `verify` found: one line for each fault, with the file and the remedy, and `remarks` on what could
    not be checked."""

    path: Path
    runs: int
    files: int
    faults: tuple[str, ...]
    remarks: tuple[str, ...]

    def lines(self) -> list[str]:
        """Each fault, each remark, and how much was looked at."""
        checked = f"{count(self.runs, 'run')}, {count(self.files, 'file')}"
        end = f"{count(len(self.faults), 'fault')}" if self.faults else "all is what was written"
        return [*self.faults, *(f"note: {text}" for text in self.remarks), f"{self.path}: {checked}: {end}"]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each fault."""
        return [{"fault": fault} for fault in self.faults]


def verify(path: Path) -> Verified:
    """Compares each file of a run, or of a study and all of its runs, with the digest that was kept when it
    was written, and the study's database with the records of its trials.

    Raises:
        DataError: neither a run nor a study lies there.
    """
    study = Study(path)
    faults: list[str] = []
    remarks: list[str] = []
    if not study.exists:
        if not any((path / name).is_file() for name in (MANIFEST, RECIPE)):
            if not path.exists():
                raise DataError(
                    f"{path}: there is no such folder{near(path) or '; name that of a run or a study'}"
                )
            raise DataError(f"{path}: neither a run nor a study lies there; name the folder of one")
        files = _verify_run(path, faults, remarks)
        return Verified(path, 1, files, tuple(faults), tuple(remarks))
    plan = _verify_plan(study, faults, remarks)
    trials = _verify_trials(study, plan, faults)
    records = read_records(study.runs)
    faults += summed_up(records.faults)
    if trials is not None:
        for number, record in records.found.items():
            faults += _differences(study, records.files[number], record, trials)
    runs = files = 0
    for run in sorted(path for path in study.runs.glob("*/") if not path.name.startswith(".")):
        if any((run / name).is_file() for name in (MANIFEST, METRICS)):
            runs, files = runs + 1, files + _verify_run(run, faults, remarks)
    if trials is not None and plan is not None:
        faults += _missing(study, plan, trials)
    return Verified(path, runs, files, tuple(faults), tuple(remarks))


def _verify_run(run: Path, faults: list[str], remarks: list[str]) -> int:
    """Adds what is wrong with a run; gives the number of its files that were compared."""
    try:
        manifest = read_manifest(run)
        faults += faults_of(run)
    except UserError as error:
        faults += error.problems
        return 0
    if RECIPE not in manifest.files:
        remarks.append(f"{run}: a version wrote it that kept no digests; what it scored since is compared")
    return len(manifest.files) + 1


def _verify_plan(study: Study, faults: list[str], remarks: list[str]) -> Plan | None:
    try:
        plan = study.plan()
    except UserError as error:
        faults += error.problems[:1]
        return None
    copy = study.plan_copy
    try:
        if not copy.is_file():
            remarks.append(f"{copy}: is missing: a version wrote the study that kept none, or it was removed")
        elif read_sealed(copy, remedy=study.remedy) != plan.plain():
            faults.append(
                f"{study.path / PLAN}: is not what {copy} says; remove the wrong one, then {study.remedy}"
            )
    except UserError as error:
        faults += error.problems
    space = study.path / SPACE
    if space.is_file() and space.read_bytes() != plan.space.encode():
        faults.append(f"{space}: is not the space of {PLAN}; {study.remedy}")
    return plan


def _verify_trials(study: Study, plan: Plan | None, faults: list[str]) -> "list[FrozenTrial] | None":
    """The trials of the database; None where they cannot be read, or none was begun."""
    if plan is None or not study.has_begun:
        return None
    try:
        return study.load().get_trials(deepcopy=False)
    except UserError as error:
        faults += error.problems
        return None


def _differences(study: Study, file: Path, record: TrialRecord, trials: "list[FrozenTrial]") -> Iterator[str]:
    """Where the database tells otherwise of a trial than its own record, which is sealed."""
    trial = trials[record.number] if record.number < len(trials) else None
    stored = None if trial is None else (trial.state.name, trial.values, trial.params)
    values = None if record.values is None else list(record.values)
    if stored != (record.state, values, record.params):
        yield (
            f"{study.path / DATABASE}: trial {record.number} is not what {file} says; move the"
            f" database away, then {study.remedy}"
        )


def _missing(study: Study, plan: Plan, trials: "list[FrozenTrial]") -> Iterator[str]:
    """The runs of completed trials that are gone; of some tasks the best trials alone leave one."""
    missing = [
        (trial.number, study.runs / trial.user_attrs[RUN])
        for trial in trials
        if trial.state.name == "COMPLETE" and not (study.runs / trial.user_attrs[RUN] / MANIFEST).is_file()
    ]
    try:
        if not missing or not plan.load_space(study.path).recipe.leaves_runs:
            return
    except UserError as error:
        yield from error.problems
        return
    for number, run in missing:
        yield f"{run}: the run of trial {number} is not whole; {RESTORE}"
