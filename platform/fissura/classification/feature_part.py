"""One Parquet file of features: the images' content hashes and a row of numbers each, of one backbone.

It is uncompressed, since float features do not compress, and every page has its checksum.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int

from fissura.core.documents import parse_json
from fissura.core.files import replacing

METADATA_KEY = b"fissura.features"
GROUP_BYTES = 1 << 24


class NotAPart(Exception):
    """Why a file is no part."""


class AnotherBackbone(Exception):
    """Whose features a part holds, against the rule that a folder holds one backbone's."""


class PartFormat:
    """How the parts of one backbone are written and read. A row group holds about 16 MB."""

    def __init__(self, *, backbone_digest: str, dimensions: int) -> None:
        self._own = {"backbone": backbone_digest, "dimensions": dimensions}
        self._dimensions = dimensions
        self.rows_per_group = max(1, GROUP_BYTES // (4 * dimensions))
        element = pa.field("element", pa.float32(), nullable=False)
        self._schema = pa.schema(
            [
                pa.field("key", pa.string(), nullable=False),
                pa.field("features", pa.list_(element, dimensions), nullable=False),
            ],
            metadata={METADATA_KEY: json.dumps(self._own).encode()},
        )

    def table(self, keys: Sequence[str], features: Float32[np.ndarray, "n d"]) -> pa.Table:
        """A table that can be written."""
        values = pa.array(np.ascontiguousarray(features, np.float32).ravel())
        column = pa.FixedSizeListArray.from_arrays(values, type=self._schema.field("features").type)
        return pa.table([pa.array(keys, pa.string()), column], schema=self._schema)

    def write(self, path: Path, tables: Iterable[pa.Table]) -> None:
        """Writes the tables one after the other, whole or not at all."""
        with (
            replacing(path) as scratch,
            pq.ParquetWriter(
                scratch,
                self._schema,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            ) as writer,
        ):
            for table in tables:
                writer.write_table(table, row_group_size=self.rows_per_group)

    def tables(self, path: Path) -> Iterator[pa.Table]:
        """The row groups of a part."""
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False)

    def keys(self, path: Path) -> list[str]:
        """The keys of a part, all of whose pages were compared with their checksums.

        Raises:
            NotAPart: the file is torn, damaged or of another kind, or holds features that are not finite.
            AnotherBackbone: it is a part of another backbone or width.
            FileNotFoundError: it is no longer there.
        """
        keys: list[str] = []
        try:
            with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                self._check(file, size=path.stat().st_size)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, use_threads=False)
                    if not np.isfinite(self._values(table)).all():
                        raise NotAPart("it holds features that are not finite")
                    keys += table.column("key").to_pylist()
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise NotAPart(f"it is not a whole Parquet file ({str(error).splitlines()[0]})") from None
        return keys

    def copy(
        self,
        path: Path,
        *,
        rows: Int[np.ndarray, "k"],
        places: Int[np.ndarray, "k"],
        into: Float32[np.ndarray, "n d"],
    ) -> None:
        """Copies the part's `rows` to `places` of `into`; one row group is in memory at a time."""
        begin = 0
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                here = (rows >= begin) & (rows < end)
                if here.any():
                    table = file.read_row_group(group, columns=["features"], use_threads=False)
                    into[places[here]] = self._values(table)[rows[here] - begin]
                begin = end

    def _check(self, file: pq.ParquetFile, *, size: int) -> None:
        schema = file.schema_arrow
        given = _described(schema)
        if given is not None and given != self._own:
            raise AnotherBackbone(
                f"a folder holds the features of one backbone, here {_which(self._own)}, and these are of"
                f" {_which(given)}; name another folder, or move the file away"
            )
        if given is None or not schema.remove_metadata().equals(self._schema.remove_metadata()):
            raise NotAPart("its columns are not those of features")
        # a small file that claims many rows would fill the memory
        if file.metadata.num_rows * 4 * self._dimensions > size:
            raise NotAPart(f"it claims {file.metadata.num_rows:,} rows, more than {size:,} bytes can hold")

    def _values(self, table: pa.Table) -> Float32[np.ndarray, "n d"]:
        chunks = [chunk.flatten().to_numpy() for chunk in table.column("features").chunks]
        values = chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, np.float32), *chunks])
        return np.asarray(values, np.float32).reshape(-1, self._dimensions)


def _described(schema: pa.Schema) -> dict[str, Any] | None:
    """What a part says about its backbone; None: it is no part."""
    try:
        plain = parse_json((schema.metadata or {}).get(METADATA_KEY, b""))
    except ValueError:
        return None
    return plain if isinstance(plain, dict) and plain.keys() == {"backbone", "dimensions"} else None


def _which(plain: dict[str, Any]) -> str:
    return f"backbone {plain['backbone']!s:.64} of {plain['dimensions']!s:.16} features"
