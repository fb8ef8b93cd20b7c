"""The rows of a batch: their columns, and the Parquet files that hold them."""

from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa

from fissura.batches.scorer import Result
from fissura.core.files import replacing
from fissura.records.table import NotRows, TableFormat, TableLimits
from fissura.segmentation.crack_measures import SUMMARY, CrackMeasures, MeasuredCrack

MAX_BYTES = 2**33  # of one file, decompressed: some ten million images
METADATA_KEY = (
    b"fissura.batches"  # the digest of the question, so that no other batch's rows are taken for these
)


def _column(kind: Any) -> pa.DataType:
    if kind == tuple[int, int, int, int]:
        return pa.list_(pa.int64())
    return pa.int64() if kind is int else pa.float64()


_MEASURES = {name: _column(get_type_hints(CrackMeasures)[name]) for name in SUMMARY}
_CRACK = pa.struct([pa.field(name, _column(kind)) for name, kind in get_type_hints(MeasuredCrack).items()])
_COLUMNS = {
    "image": pa.string(),
    "sha256": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "run": pa.string(),
    "version": pa.int64(),
    "task": pa.string(),
    "threshold": pa.float64(),
    **_MEASURES,
    "crack_table": pa.list_(_CRACK),
    "label": pa.string(),
    "decisions": pa.list_(pa.float64()),
    "seconds": pa.float64(),
    "remarks": pa.list_(pa.string()),
    "error": pa.string(),
}
SCHEMA = pa.schema([pa.field(name, kind, nullable=name != "image") for name, kind in _COLUMNS.items()])
"""One row an image. `error` says why an image has no result; it is null where there is one, and all others
but `image` and `sha256` are null where there is none. Measures (see `CrackMeasures`), `crack_table` (the
longest cracks, see `MeasuredCrack`) and `threshold` are of a segmentation, `label` and `decisions` of a
classification."""

Row = dict[str, Any]


FORM = TableFormat(
    schema=SCHEMA,
    foreign="its columns are not those of a batch of this version",
    limits=TableLimits(said="that results may have", bytes=MAX_BYTES),
)


def scored_row(name: str, result: Result) -> Row:
    """The row of an image that was scored."""
    plain = result.model_dump(exclude={"image", "cracks"})
    if result.task == "classification":
        plain["crack_table"] = None
    cracks = {key: value for key, value in (result.cracks or {}).items() if key in _MEASURES}
    return {"image": name, **plain, **result.image.model_dump(), **cracks}


def failed_row(name: str, error: str, *, sha256: str | None) -> Row:
    """The row of an image that has no result."""
    return {"image": name, "sha256": sha256, "error": error}


def write_rows(path: Path, table: pa.Table, *, question: str) -> None:
    """Writes rows of `SCHEMA`, whole or not at all; `question` is the digest of what was asked."""
    with replacing(path) as scratch:
        FORM.write_to(scratch, [table], metadata={METADATA_KEY: question.encode()})


def read_rows(path: Path, *, question: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """Some or all columns of a file of `write_rows`; where `question` is given, of this one alone.

    Raises:
        NotRows: the file is torn, or holds something else.
        FileNotFoundError: there is none.
    """
    with FORM.opened(path) as file:
        file.require_columns()
        held = file.metadata.get(METADATA_KEY, b"").decode("ascii", "replace")
        if question is not None and held != question:
            raise NotRows("it holds the results of another batch")
        return file.read(columns)


def merged(tables: list[pa.Table]) -> pa.Table:
    """One row an image, sorted by image: a result rather than a failure, else the later table's."""
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    names, errors = table.column("image").to_pylist(), table.column("error")
    failed = errors.is_valid().to_pylist()
    place: dict[str, int] = {}
    for row, name in enumerate(names):
        if name not in place or not failed[row] or failed[place[name]]:
            place[name] = row
    return table.take(pa.array([place[name] for name in sorted(place)], pa.int64()))
