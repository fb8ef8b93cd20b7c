"""Tables of scores as files of Parquet, read with bounds: a file of kilobytes can stand for gigabytes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAX_BYTES = 2**31  # of one file, decompressed: a million images without curves
MAX_VALUES = 2**28  # of all columns, those of curves counted each
MAX_ROWS = 4_000_000
MAX_TEXT = 4096  # bytes of one text


class NotARun(Exception):
    """Why a file holds no table of a run."""


class TooMuch(Exception):
    """What a file holds more of than a table of scores may."""


def open_table(path: Path, *, schema: pa.Schema) -> pq.ParquetFile:
    """The file, to be closed; texts stay numbers of a dictionary until their lengths are known.

    Raises:
        TooMuch: it holds more than a table of scores may.
        ArrowException, OSError: it is no whole Parquet file.
    """
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    held = (
        ("bytes", sum(group.total_byte_size for group in groups), MAX_BYTES),
        ("rows", metadata.num_rows, MAX_ROWS),
        (
            "values",
            sum(group.column(place).num_values for group in groups for place in range(group.num_columns)),
            MAX_VALUES,
        ),
    )
    for what, count, most in held:
        if count > most:
            raise TooMuch(f"it holds {count:,} {what}, more than the {most:,} that a run may hold")
    there = set(metadata.schema.names)
    texts = [field.name for field in schema if pa.types.is_string(field.type) and field.name in there]
    return pq.ParquetFile(path, metadata=metadata, read_dictionary=texts)


def schema_of(file: pq.ParquetFile) -> pa.Schema:
    """The columns of the file, with what it says of itself, by what they hold: writers name the items of a
    list differently ("item", "element"), and texts may be numbers of a dictionary."""
    schema = file.schema.to_arrow_schema()
    fields = [pa.field(field.name, _plain(field.type)) for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


def read_table(file: pq.ParquetFile, *, schema: pa.Schema) -> pa.Table:
    """All rows, with the columns of `schema` that are there in its types, and nulls for the others.

    Raises:
        TooMuch: a text is longer than one of a table of scores may be.
        ValueError: a null stands where none may.
        ArrowException, OSError: it is no whole Parquet file.
    """
    table = file.read().replace_schema_metadata(None)
    for column in table.columns:
        for chunk in column.chunks:
            texts = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else None
            if texts is not None and max(map(_bytes, texts), default=0) > MAX_TEXT:
                raise TooMuch(f"a text in it is longer than {MAX_TEXT} bytes")
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field.name, pa.nulls(len(table), field.type))
    return table.cast(schema)


def _bytes(text: pa.StringScalar) -> int:
    buffer = text.as_buffer()
    return 0 if buffer is None else buffer.size
