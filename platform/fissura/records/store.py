"""The store: one Parquet file a run, a row for each image and protocol, the manifest in its metadata."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int32

from fissura.core.documents import parse_json
from fissura.core.errors import DataError, SpecError
from fissura.core.text import count, data
from fissura.metrics.false_alarms import NO_CRACK
from fissura.records.manifest import Manifest
from fissura.records.run_files import rewriting, table_fault
from fissura.records.table_file import NotARun, TooMuch, open_table, read_table, schema_of

FILE = "run.parquet"
PREDICTIONS = "predictions"
METADATA_KEY = b"fissura"

ThresholdSource = Literal["validation", "recipe", "given", "swept on test"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The score of one image under one protocol at one threshold; the columns of `run.parquet`, in order.

    `configuration` is the digest of the recipe without its seed. The four counts are pixels: precision is
    tp / (tp + fp), recall is found / (found + missed). `dice` and `iou` are None where the protocol has none.
    The curves hold the same counts at the levels 0..255 of the 8-bit map, for protocols that sweep the
    threshold; else None. `alarm_components` and `alarm_area` are the false alarms and the valid pixels of an
    image without a crack (its false pixels are `false_positive`); else None. They are None, too, as is
    `data_name`, what people call the data set, in runs that were scored before they were kept.
    """

    run_id: str
    recipe: str
    configuration: str
    seed: int
    dataset: str
    data_digest: str
    split: str
    protocol: str
    threshold: float
    threshold_source: ThresholdSource
    image: str
    height: int
    width: int
    true_positive: int
    false_positive: int
    found: int
    missed: int
    precision: float
    recall: float
    f1: float
    dice: float | None
    iou: float | None
    crack_pixels: int
    curve_true_positive: Int32[np.ndarray, "256"] | None = None
    curve_false_positive: Int32[np.ndarray, "256"] | None = None
    curve_found: Int32[np.ndarray, "256"] | None = None
    curve_missed: Int32[np.ndarray, "256"] | None = None
    alarm_components: int | None = None
    alarm_area: int | None = None
    data_name: str | None = None


CURVES = tuple(field.name for field in fields(Row) if field.name.startswith("curve_"))
ALARMS = ("alarm_components", "alarm_area")
LATER = (*ALARMS, "data_name")  # columns that earlier versions did not write
NULLABLE = ("dice", "iou", *CURVES, *LATER)
KEY = ("data_digest", "split", "protocol")


def _column_type(name: str) -> pa.DataType:
    if name in CURVES:
        return pa.list_(pa.int32())
    if name in ("threshold", "precision", "recall", "f1", "dice", "iou"):
        return pa.float64()
    if name in ("seed", "true_positive", "false_positive", "found", "missed", "crack_pixels", *ALARMS):
        return pa.int64()
    if name in ("height", "width"):
        return pa.int32()
    return pa.string()


SCHEMA = pa.schema(
    [pa.field(f.name, _column_type(f.name), nullable=f.name in NULLABLE) for f in fields(Row)],
)


@dataclass(frozen=True)
class RunRecord:
    """One run as read from the disk: its directory, its manifest, and its rows as a table of `SCHEMA`."""

    directory: Path
    manifest: Manifest
    table: pa.Table


class Skipped(NamedTuple):
    """A file that is no run, and why."""

    path: Path
    reason: str


def mean_scores(rows: Sequence[Row]) -> list[str]:
    """The mean F1 of the images with a crack of each data set, split and protocol, a line each."""
    sets: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        called = data(row.data_name or row.dataset, row.data_digest)
        sets.setdefault((called, row.split, row.protocol, f"{row.threshold:.3g}"), []).append(row)
    lines = []
    for (called, split, protocol, threshold), members in sets.items():
        cracked = [row.f1 for row in members if row.crack_pixels]
        mean = f"mean F1 {np.mean(cracked):.4f} of {count(len(cracked), 'image')}" if cracked else NO_CRACK
        lines.append(f"{called} {split}, {protocol}, threshold {threshold}: {mean}")
    return lines


class Runs(NamedTuple):
    """What `read_runs` found: the runs, sorted by directory, and the files that it passed over."""

    records: list[RunRecord]
    skipped: list[Skipped]


def prediction_path(run_dir: Path, *, dataset: str, data_digest: str, split: str, image: str) -> Path:
    """Where the 8-bit probability map of an image lies in a run directory."""
    return prediction_folder(run_dir, dataset, data_digest=data_digest, split=split) / f"{image}.png"


def prediction_folder(run_dir: Path, dataset: str, *, data_digest: str, split: str) -> Path:
    """Where the maps of a data set's images lie in a run directory."""
    return run_dir / PREDICTIONS / f"{dataset}-{split}-{data_digest[:8]}"


def write_run(run_dir: Path, rows: Iterable[Row], manifest: Manifest) -> Path:
    """Writes `run.parquet`, whole or not at all, and gives its path.

    Rows that stand there already are kept, but for those of a (data digest, split, protocol) that `rows`
    holds anew. A run directory has one writer at a time.

    Raises:
        DataError: if the file that stands there is no run, or another run's.
    """
    path = run_dir / FILE
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    if path.exists():
        try:
            standing = _read(path)
        except NotARun as error:
            raise DataError(f"{path}: {error}; move it away, then write the run again") from None
        if standing.manifest.run_id != manifest.run_id:
            held, given = standing.manifest.run_id, manifest.run_id
            raise DataError(f"{path}: it holds run {held!r}, not {given!r}; choose another directory")
        renewed = set(_keys(table))
        kept = [key not in renewed for key in _keys(standing.table)]
        table = pa.concat_tables([standing.table.filter(pa.array(kept, pa.bool_())), table])
    table = table.replace_schema_metadata(
        {METADATA_KEY: json.dumps(manifest.origin, sort_keys=True).encode()}
    )
    with rewriting(run_dir, FILE) as scratch:
        pq.write_table(table, scratch, compression="zstd")
    return path


def read_runs(roots: Sequence[Path]) -> Runs:
    """Every run under `roots`, which are run directories, study directories or run files, each run once.

    A torn or foreign file is passed over, and named in `skipped`.

    Raises:
        DataError: with every root that does not exist.
    """
    missing = [root for root in roots if not root.exists()]
    if missing:
        raise DataError(*(f"{root}: no such run or study directory" for root in missing))
    found = {path.resolve() for root in roots for path in ([root] if root.is_file() else root.rglob(FILE))}
    records, skipped = [], []
    for path in sorted(found):
        try:
            records.append(_read(path))
        except NotARun as error:
            skipped.append(Skipped(path, str(error)))
    return Runs(records, skipped)


def _read(path: Path) -> RunRecord:
    if fault := table_fault(path):
        raise NotARun(fault)
    try:
        with open_table(path, schema=SCHEMA) as file:
            schema = schema_of(file)
            lacking = [name for name in LATER if name not in schema.names]
            known = pa.schema([field for field in SCHEMA if field.name not in lacking])
            # Nullability and metadata may differ between writers; the names and types may not.
            if schema.names != known.names or schema.types != known.types:
                raise NotARun("its columns are not those of a run")
            manifest = _manifest(schema.metadata)
            table = read_table(file, schema=SCHEMA)
    except TooMuch as error:
        raise NotARun(str(error)) from None
    except (pa.ArrowException, OSError, ValueError) as error:  # a null is a plain ValueError
        raise NotARun(f"it is not a whole Parquet file ({str(error).splitlines()[0]})") from None
    return RunRecord(path.parent, manifest, table)


def _manifest(metadata: dict[bytes, bytes] | None) -> Manifest:
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise NotARun("it carries no manifest of a run")
    try:
        return Manifest.load(parse_json(text), source="manifest")
    except (SpecError, ValueError) as error:
        raise NotARun(f"its manifest is not valid ({str(error).splitlines()[0]})") from None


def _keys(table: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in KEY), strict=True))
