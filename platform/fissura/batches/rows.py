"""The rows of a batch: their columns, and the Parquet files that hold them."""

from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from fissura.batches.scorer import Result
from fissura.core.files import replacing
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


class NotRows(Exception):
    """Why a file holds no rows of this batch."""


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
        pq.write_table(
            table.replace_schema_metadata({METADATA_KEY: question.encode()}), scratch, compression="zstd"
        )


def read_rows(path: Path, *, question: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """Some or all columns of a file of `write_rows`; where `question` is given, of this one alone.

    Raises:
        NotRows: the file is torn, or holds something else.
    """
    try:
        with pq.ParquetFile(path.absolute()) as file:
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
            if size > MAX_BYTES:
                raise NotRows(f"it holds {size:,} bytes, more than the {MAX_BYTES:,} that results may have")
            schema = file.schema_arrow
            if schema.names != SCHEMA.names:
                raise NotRows("its columns are not those of a batch of this version")
            held = (schema.metadata or {}).get(METADATA_KEY, b"").decode("ascii", "replace")
            if question is not None and held != question:
                raise NotRows("it holds the results of another batch")
            table = file.read(columns=columns, use_threads=False).replace_schema_metadata(None)
            return table.cast(pa.schema([SCHEMA.field(name) for name in table.column_names]))
    except (pa.ArrowException, OSError, ValueError) as error:  # a null is a plain ValueError
        raise NotRows(f"it is not a whole Parquet file ({str(error).splitlines()[0]})") from None


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
