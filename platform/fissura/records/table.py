"""Tables as Parquet files, read with bounds: a file of kilobytes can decompress to gigabytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq


class NotRows(Exception):
    """Why a file does not hold the expected rows."""


@dataclass(frozen=True, kw_only=True)
class TableLimits:
    """What a file may hold at most (None: as much as it likes): `bytes` decompressed, `rows`, `values` of all
    columns, those of lists counted each, and bytes of one `text`. `rule` ends the error: more than
    the so many "that a run may hold"."""

    rule: str
    bytes: int
    rows: int | None = None
    values: int | None = None
    text: int | None = None


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """The file format of one kind of rows.

    `later` are the columns that earlier versions did not write: they are read as nulls. `foreign` is the
    error of a file with other columns. `pages` that are "plain" are not compressed, have checksums, and are
    read from a memory map.
    """

    schema: pa.Schema
    foreign: str
    later: tuple[str, ...] = ()
    limits: TableLimits | None = None
    pages: Literal["zstd", "plain"] = "zstd"

    def write_to(
        self,
        scratch: Path,
        tables: Iterable[pa.Table],
        *,
        metadata: Mapping[bytes, bytes],
        rows_per_group: int | None = None,
    ) -> None:
        """Writes the tables one after the other to a path that takes the place of the file's."""
        plain = self.pages == "plain"
        with pq.ParquetWriter(
            scratch,
            self.schema.with_metadata(dict(metadata)),
            compression="none" if plain else "zstd",
            use_dictionary=not plain,
            write_statistics=not plain,
            write_page_checksum=plain,
        ) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=rows_per_group)

    @contextmanager
    def opened(
        self, path: Path, *, checksums: Literal["verified", "ignored"] = "ignored"
    ) -> Iterator["OpenTable"]:
        """The file, to be looked at and read within the block.

        Raises:
            NotRows: it is no whole Parquet file, a null stands where none may, or it holds more than it may.
            FileNotFoundError: it is not there.
        """
        try:
            # a path such as `a:b/c` would be read as a URL
            metadata = pq.read_metadata(path.absolute())
            self._require_within_limits(metadata)
            known = set(metadata.schema.names)
            bounded = self.limits is not None and self.limits.text is not None
            # texts stay numbers of a dictionary until their lengths are known
            texts = [
                field.name for field in self.schema if pa.types.is_string(field.type) and field.name in known
            ]
            with pq.ParquetFile(
                path.absolute(),
                metadata=metadata,
                read_dictionary=texts if bounded else None,
                memory_map=self.pages == "plain",
                page_checksum_verification=checksums == "verified",
            ) as file:
                yield OpenTable(self, file)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:  # a null is a plain ValueError
            raise NotRows(f"it is not a whole Parquet file ({str(error).splitlines()[0]})") from None

    def _require_within_limits(self, metadata: pq.FileMetaData) -> None:
        limits = self.limits
        if limits is None:
            return
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        values = (group.column(column).num_values for group in groups for column in range(group.num_columns))
        counts = (
            ("bytes", sum(group.total_byte_size for group in groups), limits.bytes),
            ("rows", metadata.num_rows, limits.rows),
            ("values", 0 if limits.values is None else sum(values), limits.values),
        )
        for what, count, most in counts:
            if most is not None and count > most:
                raise NotRows(f"it holds {count:,} {what}, more than the {most:,} {limits.rule}")


class OpenTable:
    """A file that `TableFormat.opened` has opened: what it says of itself, and how many rows it has, all in
    all and by row group. What is read has the columns and types of the format."""

    def __init__(self, form: TableFormat, file: pq.ParquetFile) -> None:
        self._form, self._file = form, file
        self._schema = file.schema.to_arrow_schema()
        self.metadata: dict[bytes, bytes] = self._schema.metadata or {}
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        self.group_rows: list[int] = [group.num_rows for group in groups]

    def require_columns(self) -> None:
        """Compares the columns by name and by what they hold. Nullability may differ between writers, which
        name the items of a list differently, too ("item", "element"), and texts may be numbers of a
        dictionary.

        Raises:
            NotRows: they are not those of the format.
        """
        lacking = set(self._form.later) - set(self._schema.names)
        known = [(field.name, _plain(field.type)) for field in self._form.schema if field.name not in lacking]
        if [(field.name, _plain(field.type)) for field in self._schema] != known:
            raise NotRows(self._form.foreign)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, of all columns or of these.

        Raises:
            NotRows: a text is longer than it may be.
        """
        return self._checked(self._file.read(columns=columns), columns)

    def read_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one row group."""
        return self._checked(self._file.read_row_group(number, columns=columns, use_threads=False), columns)

    def groups(self) -> Iterator[pa.Table]:
        """The row groups one after the other."""
        yield from map(self.read_group, range(len(self.group_rows)))

    def _checked(self, table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
        table = table.replace_schema_metadata(None)
        if self._form.limits and self._form.limits.text is not None:
            _require_short_texts(table, most=self._form.limits.text)
        fields = [field for field in self._form.schema if columns is None or field.name in columns]
        for field in fields:
            if field.name not in table.column_names:
                table = table.append_column(field.name, pa.nulls(len(table), field.type))
        return table.select([field.name for field in fields]).cast(pa.schema(fields))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column without the names and nullability of its parts."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    return kind


def _require_short_texts(table: pa.Table, *, most: int) -> None:
    for column in table.columns:
        for chunk in column.chunks:
            texts = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else ()
            if max(map(_bytes, texts), default=0) > most:
                raise NotRows(f"a text in it is longer than {most} bytes")


def _bytes(text: pa.StringScalar) -> int:
    buffer = text.as_buffer()
    return 0 if buffer is None else buffer.size
