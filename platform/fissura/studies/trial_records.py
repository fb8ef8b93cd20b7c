"""Each ended trial a second time, in the folder of its run: what the study's database can be rebuilt from.

RUN/trial.json   the trial as Optuna has it, sealed (see `core.documents`)
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from fissura.core.documents import read_sealed, write_sealed
from fissura.core.errors import UserError
from fissura.core.spec import Spec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RECORD = "trial.json"
REMEDY = "remove it: the study's database holds the trial too"


class TrialRecord(Spec):
    """A trial that ended, in JSON types; `distributions` as Optuna writes them, times without a zone."""

    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    values: tuple[float, ...] | None
    params: dict[str, JsonValue]
    distributions: dict[str, str]
    user_attrs: dict[str, JsonValue]
    system_attrs: dict[str, JsonValue]
    intermediate_values: dict[int, float]
    started: datetime | None
    finished: datetime | None

    def trial(self) -> "FrozenTrial":
        """The trial, to add to a study."""
        from optuna.distributions import json_to_distribution
        from optuna.trial import TrialState, create_trial

        made = create_trial(
            state=TrialState[self.state],
            values=self.values,
            params=self.params,
            distributions={name: json_to_distribution(text) for name, text in self.distributions.items()},
            user_attrs=self.user_attrs,
            system_attrs=self.system_attrs,
            intermediate_values=self.intermediate_values,
        )
        made.datetime_start, made.datetime_complete = self.started, self.finished or made.datetime_complete
        return made


def write_record(run: Path, trial: "FrozenTrial") -> None:
    """Writes down a trial that ended, in the folder of its run.

    Raises:
        OSError: it cannot be written.
    """
    from optuna.distributions import distribution_to_json

    record = TrialRecord(
        number=trial.number,
        state=trial.state.name,
        values=trial.values,
        params=trial.params,
        distributions={name: distribution_to_json(each) for name, each in trial.distributions.items()},
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
        started=trial.datetime_start,
        finished=trial.datetime_complete,
    )
    write_sealed(run / RECORD, record.plain())


def read_record(run: Path) -> TrialRecord:
    """The record in a run's folder.

    Raises:
        SpecError: it is missing or damaged.
    """
    path = run / RECORD
    return TrialRecord.load(read_sealed(path, remedy=REMEDY), source=str(path), remedy=REMEDY)


def records_below(runs: Path) -> Iterator[tuple[Path, TrialRecord | UserError | None]]:
    """Each folder of a run, by its name, with its record, or what is wrong with that, or None without one."""
    for run in sorted(path for path in runs.glob("*/") if not path.name.startswith(".")):
        if not (run / RECORD).is_file():
            yield run, None
            continue
        try:
            yield run, read_record(run)
        except UserError as error:
            yield run, error
