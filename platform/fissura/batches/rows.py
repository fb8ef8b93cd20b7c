"""The rows of a batch: columns and Parquet files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from fissura.batches.scorer import Result
from fissura.core.files import replacing
from fissura.core.tasks import Task, all_tasks, task_named
from fissura.records.table import NotRows, TableFormat, TableLimits

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
    """The columns of a table of a version with these tasks, one row an image.

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


def _format() -> TableFormat:
    first, *others = all_tasks()
    return TableFormat(
        schema=schema_of([first, *others]),
        foreign="its columns are not those of a batch of this version",
        # earlier versions had fewer tasks, and lack the columns of the others
        later=tuple(name for task in others for name in task.batch.columns),
        limits=TableLimits(rule="that results may have", bytes=MAX_BYTES),
    )


def scored_row(name: str, result: Result) -> Row:
    """The row of an image that was scored."""
    head = result.model_dump(include={"run", "version", "task", "seconds"})
    own = task_named(result.task).batch.row(result)
    return {"image": name, **head, **result.image.model_dump(), **own}


def failed_row(name: str, error: str, *, sha256: str | None) -> Row:
    """The row of an image that has no result."""
    return {"image": name, "sha256": sha256, "error": error}


def write_rows(path: Path, table: pa.Table, *, question: str) -> None:
    """Writes rows of `schema()`, whole or not at all; `question` is the digest of the question."""
    with replacing(path) as scratch:
        _format().write_to(scratch, [table], metadata={METADATA_KEY: question.encode()})


def read_rows(path: Path, *, question: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """Some or all columns of a file of `write_rows`; `question`, if given, must be its question.

    Raises:
        NotRows: the file is torn, or holds something else.
        FileNotFoundError: there is none.
    """
    with _format().opened(path) as file:
        file.require_columns()
        digest = file.metadata.get(METADATA_KEY, b"").decode("ascii", "replace")
        if question is not None and digest != question:
            raise NotRows("it holds the results of another batch")
        return file.read(columns)


def merged(tables: list[pa.Table]) -> pa.Table:
    """One row per image, sorted by image: a result rather than a failure, else the later row."""
    table = pa.concat_tables(tables) if tables else schema().empty_table()
    names, errors = table.column("image").to_pylist(), table.column("error")
    failed = errors.is_valid().to_pylist()
    row_of: dict[str, int] = {}
    for row, name in enumerate(names):
        if name not in row_of or not failed[row] or failed[row_of[name]]:
            row_of[name] = row
    return table.take(pa.array([row_of[name] for name in sorted(row_of)], pa.int64()))
