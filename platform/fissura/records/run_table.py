"""The tables of runs: one Parquet file a run, the manifest in its metadata."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import pyarrow as pa

from fissura.core.documents import parse_json
from fissura.core.errors import DataError, SpecError
from fissura.core.files import near
from fissura.core.spec import Spec
from fissura.records.manifest import Manifest
from fissura.records.run_files import rewriting, table_fault
from fissura.records.table import NotRows, TableFormat, TableLimits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

METADATA_KEY = b"fissura"
LIMITS = TableLimits(
    rule="that a run may hold",
    bytes=2**31,  # a million images without curves
    rows=4_000_000,
    values=2**28,
    text=4096,
)


class RunFacts(Spec):
    """A run's facts beside its manifest; a task may add its own."""

    def conflict(self, given: "RunFacts") -> str:
        """Why rows of a run with the facts `given` cannot join these; empty where they can."""
        return ""

    def problems(self, table: pa.Table, manifest: Manifest) -> list[str]:
        """Each rule that the rows break."""
        return []


S = TypeVar("S", bound=Spec)
F = TypeVar("F", bound=RunFacts)


@dataclass(frozen=True)
class Record(Generic[F]):
    """A run as read from the disk: its directory, manifest, rows (a table of the task's schema) and facts."""

    directory: Path
    manifest: Manifest
    table: pa.Table
    facts: F


class Skipped(NamedTuple):
    """A file that is not a run, and the reason."""

    path: Path
    reason: str


class Runs(NamedTuple, Generic[F]):
    """The runs, sorted by directory, and the skipped files."""

    records: list[Record[F]]
    skipped: list[Skipped]


@dataclass(frozen=True, kw_only=True)
class RunTable(Generic[F]):
    """How one task's runs are kept: as RUN/`file`. Rows that agree in the columns `key` are renewed together.

    `facts` stand in the metadata under `facts_key`, called `facts_name`; those without a key are not kept.
    """

    file: str
    form: TableFormat
    key: tuple[str, ...]
    facts: type[F]
    facts_key: bytes = b""
    facts_name: str = ""

    def write(self, run_dir: Path, rows: "Iterable[DataclassInstance]", manifest: Manifest, facts: F) -> Path:
        """Writes the file, whole or not at all, and gives its path.

        Rows that stand there already are kept, but for those whose `key` the new ones hold. A run directory
        has one writer at a time.

        Raises:
            DataError: rows that break a rule; or the file that stands there is no run, or another's.
        """
        path = run_dir / self.file
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=self.form.schema)
        if path.exists():
            table = self._merged(path, table, manifest, facts)
        problems = facts.problems(table, manifest)
        if problems:
            raise DataError(*(f"{path}: {problem}; nothing was written" for problem in problems))
        documents = {METADATA_KEY: manifest.origin}
        if self.facts_key:
            documents[self.facts_key] = facts.plain()
        metadata = {key: json.dumps(value, sort_keys=True).encode() for key, value in documents.items()}
        with rewriting(run_dir, self.file) as scratch:
            self.form.write_to(scratch, [table], metadata=metadata)
        return path

    def _merged(self, path: Path, table: pa.Table, manifest: Manifest, facts: F) -> pa.Table:
        try:
            existing = self.read(path)
        except NotRows as error:
            raise DataError(f"{path}: {error}; move it away, then write the run again") from None
        existing_id, new_id = existing.manifest.run_id, manifest.run_id
        conflict = (
            f"it holds run {existing_id!r}, not {new_id!r}"
            if existing_id != new_id
            else existing.facts.conflict(facts)
        )
        if conflict:
            raise DataError(f"{path}: {conflict}; choose another directory")
        renewed = set(keys_of(table, self.key))
        kept = [key not in renewed for key in keys_of(existing.table, self.key)]
        return pa.concat_tables([existing.table.filter(pa.array(kept, pa.bool_())), table])

    def read_all(self, roots: Sequence[Path]) -> Runs[F]:
        """Every run under `roots`, which are run directories, study directories or files, each run once.

        Torn and foreign files are listed in `skipped`.

        Raises:
            DataError: with every root that does not exist.
        """
        missing = [root for root in roots if not root.exists()]
        if missing:
            raise DataError(
                *(
                    f"{root}: there is no such folder{near(root) or '; name a run or a study'}"
                    for root in missing
                )
            )
        path_groups = [[root] if root.is_file() else root.rglob(self.file) for root in roots]
        records, skipped = [], []
        for path in sorted({path.resolve() for paths in path_groups for path in paths}):
            try:
                records.append(self.read(path))
            except NotRows as error:
                skipped.append(Skipped(path, str(error)))
        return Runs(records, skipped)

    def read(self, path: Path) -> Record[F]:
        """The run whose file this is.

        Raises:
            NotRows: it is torn, damaged, of another kind, or its rows break a rule.
        """
        if fault := table_fault(path):
            raise NotRows(fault)
        try:
            with self.form.opened(path) as file:
                file.require_columns()
                manifest = _read_metadata(Manifest, file.metadata, METADATA_KEY, name="manifest")
                facts = (
                    _read_metadata(self.facts, file.metadata, self.facts_key, name=self.facts_name)
                    if self.facts_key
                    else self.facts()
                )
                table = file.read()
        except FileNotFoundError:
            raise NotRows("it is no longer there") from None
        if problems := facts.problems(table, manifest):
            raise NotRows(problems[0])
        return Record(path.parent, manifest, table, facts)


def _read_metadata(kind: type[S], metadata: Mapping[bytes, bytes], key: bytes, *, name: str) -> S:
    text = metadata.get(key)
    if text is None:
        raise NotRows(f"it carries no {name} of a run")
    try:
        return kind.load(parse_json(text), source=name)
    except (SpecError, ValueError) as error:
        raise NotRows(f"its {name} is not valid ({str(error).splitlines()[0]})") from None


def keys_of(table: pa.Table, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The values of these columns, a tuple a row."""
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
