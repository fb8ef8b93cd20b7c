"""The rows of a batch: their columns, and the Parquet files that hold them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fissura.batches.scorer import Result
from fissura.core.files import replacing
from fissura.core.tasks import Task, all_tasks, task_named

MAX_BYTES = 2**33  # of one file, decompressed: some ten million images
METADATA_KEY = (
    b"fissura.batches"  # the digest of the question, so that no other batch's rows are taken for these
)


_HEAD = {
    "image": pa.string(),
    "sha256": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "run": pa.string(),
    "version": pa.int64(),
    "task": pa.string(),
}
_TAIL = {"seconds": pa.float64(), "remarks": pa.list_(pa.string()), "error": pa.string()}


def schema_of(tasks: Iterable[Task]) -> pa.Schema:
    """The columns of a table of a version that knows these tasks, one row an image.

    `error` says why an image has no result; it is null where there is one, and all others but `image` and
    `sha256` are null where there is none. Those between `task` and `seconds` are each of one task, null in
    the others' rows.
    """
    own = {name: kind for task in tasks for name, kind in task.batch.columns.items()}
    columns = {**_HEAD, **own, **_TAIL}
    return pa.schema([pa.field(name, kind, nullable=name != "image") for name, kind in columns.items()])


def schema() -> pa.Schema:
    """The columns of this version's tables."""
    return schema_of(all_tasks())


Row = dict[str, Any]


class NotRows(Exception):
    """Why a file holds no rows of this batch."""


def scored_row(name: str, result: Result) -> Row:
    """The row of an image that was scored."""
    head = result.model_dump(include={"run", "version", "task", "seconds"})
    own = task_named(result.task).batch.row(result)
    return {"image": name, **head, **result.image.model_dump(), **own}


def failed_row(name: str, error: str, *, sha256: str | None) -> Row:
    """The row of an image that has no result."""
    return {"image": name, "sha256": sha256, "error": error}


def write_rows(path: Path, table: pa.Table, *, question: str) -> None:
    """Writes rows of `schema()`, whole or not at all; `question` is the digest of what was asked."""
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
            known, names = schema(), file.schema_arrow.names
            # a version that knew fewer tasks wrote no columns of the others
            tasks = all_tasks()
            if names not in [schema_of(tasks[:count]).names for count in range(1, len(tasks) + 1)]:
                raise NotRows("its columns are not those of a batch of this version")
            held = (file.schema_arrow.metadata or {}).get(METADATA_KEY, b"").decode("ascii", "replace")
            if question is not None and held != question:
                raise NotRows("it holds the results of another batch")
            table = file.read(columns=columns, use_threads=False).replace_schema_metadata(None)
            for name in columns or known.names:
                if name not in names:
                    table = table.append_column(name, pa.nulls(len(table), known.field(name).type))
            table = table.select(columns or known.names)
            return table.cast(pa.schema([known.field(name) for name in table.column_names]))
    except (pa.ArrowException, OSError, ValueError) as error:  # a null is a plain ValueError
        raise NotRows(f"it is not a whole Parquet file ({str(error).splitlines()[0]})") from None


def merged(tables: list[pa.Table]) -> pa.Table:
    """One row an image, sorted by image: a result rather than a failure, else the later table's."""
    table = pa.concat_tables(tables) if tables else schema().empty_table()
    names, errors = table.column("image").to_pylist(), table.column("error")
    failed = errors.is_valid().to_pylist()
    place: dict[str, int] = {}
    for row, name in enumerate(names):
        if name not in place or not failed[row] or failed[place[name]]:
            place[name] = row
    return table.take(pa.array([place[name] for name in sorted(place)], pa.int64()))
