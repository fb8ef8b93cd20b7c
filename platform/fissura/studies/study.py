"""A study on disk: what was asked for (`study.json`), its trials (an Optuna database), its runs, its results.

    STUDY/study.json   the plan          STUDY/runs/<run>   one directory a distinct configuration
    STUDY/space.yaml   its space, as asked
    STUDY/study.db     the trials        STUDY/leaderboard.*, report.html, search.log

A search goes on from the Optuna database, whatever process dies. What was asked for stands again in
runs/plan.json, and each trial that ended in runs/trials.jsonl (see `trial_records`): from runs/ alone
`repair` makes the others anew.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue

from fissura.core.documents import write_sealed
from fissura.core.errors import SpaceError, UserError, named
from fissura.core.files import near, write_json, write_text
from fissura.core.retry import OnWait, must_stand
from fissura.core.spec import Spec
from fissura.core.tasks import Task, task_named
from fissura.data.lock import claimed
from fissura.data.sources import AnySource
from fissura.records.study_ranking import finished
from fissura.spaces.distributions import Scalar
from fissura.spaces.load import load_text
from fissura.spaces.space import LoadedSpace, Metric
from fissura.spaces.strict_yaml import write_value
from fissura.spaces.sweep import Sweep
from fissura.studies.database import DATABASE, database_fault, database_url
from fissura.studies.trial_records import RECORDS, append_records, read_records
from fissura.training.experiment import KeptBy

if TYPE_CHECKING:
    import optuna

SPACE, PLAN = "space.yaml", "study.json"


class Plan(Spec):
    """Everything that decides a search; `space` is the search space's text, so that a resumed study cannot
    drift from it.

    `objectives` take the place of the space's own, where there are any. `kept_by` is as in a `LoadedSpace`;
    None in studies from before there was a choice. Of the `trials`, `sweeps` name
    their own; the sampler chooses the others.
    """

    name: str
    space: str
    profile: str | None
    fixed: dict[str, JsonValue]
    datasets: tuple[AnySource, ...]
    content: str
    trials: int = Field(ge=1)
    seed: int = Field(ge=0)
    objectives: tuple[Metric, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    kept_by: KeptBy | None = None

    @property
    def swept(self) -> tuple[tuple[str, Scalar], ...]:
        """The points of all sweeps."""
        return tuple(point for sweep in self.sweeps for point in sweep.points)

    def load_space(self, folder: Path) -> LoadedSpace:
        """The space as the study in `folder` searches it, whose plan is named where it breaks a rule."""
        space = load_text(
            self.space,
            source=str(folder / PLAN),
            profile=self.profile,
            fixed=self.fixed,
            objectives=self.objectives,
        )
        return replace(space, kept_by=self.kept_by)

    def task(self, folder: Path) -> Task:
        """The task of its recipe; see `load_space`."""
        return task_named(self.load_space(folder).recipe.task)

    def command(self, place: Path) -> str:
        """The command lines that make the study at `place`, an absolute path, anew beside it: the first
        begins it, each further one adds a sweep."""
        anew = re.sub(r"[^\w. -]", "-", self.name).lstrip(". -") or "study"
        search = ["fissura", "search", str(place / SPACE)]
        named = ["--storage", str(place.parent), "--name", f"{anew}-again"]
        sweeps, free = list(self.sweeps), self.trials - len(self.swept)
        words = list(search)
        for dataset in self.datasets:
            words += ["--data", str(dataset)]
        # a sweep that came first brought the paper's own trial with it
        begins = sweeps.pop(0).words() if sweeps and free == 1 else ["--trials", str(free)]
        words += [*named, *begins, "--seed", str(self.seed), "--profile", self.profile or "none"]
        for path, value in self.fixed.items():
            words += ["--set", f"{path}={write_value(value)}"]
        for metric in self.objectives:
            words += ["--objective", metric]
        added = [[*search, *named, "--resume", *sweep.words()] for sweep in sweeps]
        return "\n".join(map(shlex.join, [words, *added]))


@dataclass(frozen=True)
class Study:
    """A study's folder."""

    path: Path

    @property
    def runs(self) -> Path:
        """The folder of its run directories."""
        return self.path / "runs"

    @property
    def exists(self) -> bool:
        """Whether a search has begun here, whatever became of its files."""
        return any((self.path / name).is_file() for name in (PLAN, DATABASE)) or self.plan_copy.is_file()

    @property
    def has_begun(self) -> bool:
        """Whether a trial was begun, whatever became of the database; a search that was killed before its
        first one leaves none, or an empty file."""
        path = self.path / DATABASE
        begun = (path.is_file() and path.stat().st_size > 0) or (self.runs / RECORDS).is_file()
        return begun or any(self.runs.glob("*/"))

    @property
    def plan_copy(self) -> Path:
        """The second place of the plan."""
        return self.runs / "plan.json"

    @property
    def remedy(self) -> str:
        """What to do where a file of the study itself is damaged."""
        return f"rebuild it with `fissura repair {shlex.quote(str(self.path))}`"

    def plan(self) -> Plan:
        """The plan.

        Raises:
            SpaceError: no study lies here.
            SpecError: the plan is missing or damaged.
        """
        if not self.exists:
            raise SpaceError(
                f"{self.path}: no study lies here (no {PLAN}); name the folder that a search printed"
            )
        return Plan.load_file(self.path / PLAN, remedy=self.remedy)

    def write(self, plan: Plan) -> None:
        """Keeps the plan, and its space as a file that a search can be begun with."""
        write_text(self.path / SPACE, plan.space)
        write_json(self.path / PLAN, plan.plain())
        write_sealed(self.plan_copy, plan.plain())

    def command(self) -> str:
        """The command lines that make this study anew beside it, wherever a shell runs them."""
        plan = self.plan()
        if not (self.path / SPACE).is_file():  # as in studies of earlier versions
            write_text(self.path / SPACE, plan.space)
        return plan.command(self.path.resolve())

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the study for one search; the kernel lets go when the process ends, however it ends.

        Raises:
            SpaceError: another process searches it.
        """
        refusal = SpaceError(
            f"{self.path}: another process searches this study; wait for it, or stop it with Ctrl-C or"
            " SIGTERM"
        )
        with claimed(self.path, refusal=refusal):
            yield

    @property
    def url(self) -> str:
        """The database, as Optuna and optuna-dashboard name it."""
        return database_url(self.path.resolve() / DATABASE)

    def storage(self, *, on_wait: OnWait = lambda _: None) -> "optuna.storages.RDBStorage":
        """The open database; it waits for another writer's lock, and for storage that is full or gone, rather
        than fail, and tells `on_wait` of the latter."""
        from fissura.studies.patient_storage import PatientStorage

        return PatientStorage(self.url, on_wait=on_wait)

    def keep_record(self, trial: "optuna.trial.FrozenTrial") -> None:
        """Writes down a trial that ended beside the runs; a storage that is gone is not waited for, as the
        database has the trial."""
        self._append([trial])

    def keep_missing(self, study: "optuna.Study") -> None:
        """Writes down the trials that ended and have no record: a process that is killed may leave one."""
        known = read_records(self.runs).found
        self._append([trial for trial in finished(study) if trial.number not in known])

    def _append(self, trials: "list[optuna.trial.FrozenTrial]") -> None:
        with suppress(OSError):
            must_stand(self.runs)
            append_records(self.runs, trials)

    def load(self) -> "optuna.Study":
        """The Optuna study, to read.

        Raises:
            SpaceError: no trial was begun; or the database is missing or damaged.
        """
        import optuna

        name = self.plan().name
        self.check_trials()
        if not self.has_begun:
            raise SpaceError(f"{self.path}: the search has not begun its first trial; run it with --resume")
        try:
            study = optuna.load_study(study_name=name, storage=self.storage())
            study.get_trials(deepcopy=False)  # Optuna keeps them: what cannot be read is found now
        except UserError:
            raise
        except Exception as error:  # SQLAlchemy's, Optuna's and JSON's have no common base
            raise self._damaged(named(error)) from None
        return study

    def check_trials(self) -> None:
        """Looks whether the database is whole, where there is one, or needs to be one.

        Raises:
            SpaceError: it is missing or damaged.
        """
        name, path = self.plan().name, self.path / DATABASE
        if not self.has_begun:
            return
        if not path.is_file():
            raise SpaceError(f"{path}: is missing, and runs stand in {self.runs}; {self.remedy}")
        if fault := database_fault(path, name=name):
            raise self._damaged(fault)

    def _damaged(self, fault: str) -> SpaceError:
        return SpaceError(f"{self.path / DATABASE}: is damaged ({fault}); {self.remedy}")


def find_study(path: Path) -> Study:
    """The study at `path`, or the only one directly below it.

    Raises:
        SpaceError: there is none, or there are several.
    """
    if Study(path).exists:
        return Study(path)
    below = sorted(file.parent for file in path.glob(f"*/{PLAN}")) if path.is_dir() else []
    if len(below) == 1:
        return Study(below[0])
    if below:
        raise SpaceError(
            f"{path}: one study is meant, and there are {len(below)}: {', '.join(map(str, below))}; name its"
            f" folder (of a search: --name {below[0].name})"
        )
    problem = "no study lies there" if path.exists() else f"there is no such folder{near(path)}"
    raise SpaceError(f"{path}: name a study's folder (one with a study.json); {problem}")
