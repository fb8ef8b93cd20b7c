"""Each ended trial a second time, beside the runs: what the study's database can be rebuilt from.

runs/trials.jsonl   a line a trial, as Optuna has it, sealed (see `core.documents`)
RUN/trial.json      the same of one trial, as a version wrote it that made a folder for each

A search appends; what a process that was killed left of its last line is cut off by the next.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from fissura.core.documents import parse_json, read_sealed, sealed, unsealed
from fissura.core.errors import SpecError, UserError
from fissura.core.spec import Spec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RECORDS, RECORD = "trials.jsonl", "trial.json"
REMEDY = "remove the file: the database holds the trials too, and a search with --resume writes it anew"


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

        trial = create_trial(
            state=TrialState[self.state],
            values=self.values,
            params=self.params,
            distributions={name: json_to_distribution(text) for name, text in self.distributions.items()},
            user_attrs=self.user_attrs,
            system_attrs=self.system_attrs,
            intermediate_values=self.intermediate_values,
        )
        trial.datetime_start, trial.datetime_complete = self.started, self.finished or trial.datetime_complete
        return trial


@dataclass(frozen=True)
class Records:
    """The records of a study by the number of the trial, the file of each, and a line for each that is
    damaged."""

    found: dict[int, TrialRecord] = field(default_factory=dict)
    files: dict[int, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def append_records(runs: Path, trials: "Iterable[FrozenTrial]") -> None:
    """Writes down trials that ended, a line each; one process at a time does so.

    Raises:
        OSError: they cannot be written.
    """
    lines = "".join(f"{json.dumps(sealed(_record(trial).plain()))}\n" for trial in trials).encode()
    with (runs / RECORDS).open("a+b") as file:
        if size := file.tell():
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(lines)


def _record(trial: "FrozenTrial") -> TrialRecord:
    from optuna.distributions import distribution_to_json

    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        values=trial.values,
        params=trial.params,
        distributions={
            name: distribution_to_json(distribution) for name, distribution in trial.distributions.items()
        },
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
        started=trial.datetime_start,
        finished=trial.datetime_complete,
    )


def read_records(runs: Path) -> Records:
    """All records below the folder of runs; of two of one trial the later."""
    records = Records()
    for path in sorted(runs.glob(f"[!.]*/{RECORD}")):
        try:
            _keep(read_sealed(path, remedy=REMEDY), path, records, source=str(path))
        except UserError as error:
            records.faults.extend(error.problems)
    path = runs / RECORDS
    # what stands behind the last end of a line was not written whole
    content = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    for number, line in enumerate(content, start=1):
        source = f"{path}:{number}"
        try:
            plain = parse_json(line)
            if not isinstance(plain, dict):
                raise ValueError("holds no object")
            _keep(unsealed(plain, source=source, remedy=REMEDY), path, records, source=source)
        except ValueError as error:
            records.faults.append(f"{source}: not readable as JSON ({error}); {REMEDY}")
        except SpecError as error:
            records.faults.extend(error.problems)
    return records


def _keep(plain: dict[str, JsonValue], path: Path, records: Records, *, source: str) -> None:
    record = TrialRecord.load(plain, source=source, remedy=REMEDY)
    records.found[record.number], records.files[record.number] = record, path
