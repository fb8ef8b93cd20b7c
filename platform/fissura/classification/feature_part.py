"""One Parquet file of features: the images' content hashes and a row of features each, of one backbone.

It is uncompressed, since float features do not compress, and every page has its checksum.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int

from fissura.core.documents import parse_json
from fissura.core.files import replacing
from fissura.records.table import NotRows, OpenTable, TableFormat

METADATA_KEY = b"fissura.features"
GROUP_BYTES = 1 << 24


class AnotherBackbone(Exception):
    """A part holds another backbone's features than its folder."""


class PartFormat:
    """How the parts of one backbone are written and read. A row group holds about 16 MB."""

    def __init__(self, *, backbone_digest: str, dimensions: int) -> None:
        self._own = {"backbone": backbone_digest, "dimensions": dimensions}
        self._dimensions = dimensions
        self.rows_per_group = max(1, GROUP_BYTES // (4 * dimensions))
        element = pa.field("element", pa.float32(), nullable=False)
        schema = pa.schema(
            [
                pa.field("key", pa.string(), nullable=False),
                pa.field("features", pa.list_(element, dimensions), nullable=False),
            ]
        )
        self._form = TableFormat(
            schema=schema, foreign="its columns are not those of features", pages="plain"
        )

    def table(self, keys: Sequence[str], features: Float32[np.ndarray, "n d"]) -> pa.Table:
        """A table for `write`: keys, and features of the same order."""
        values = pa.array(np.ascontiguousarray(features, np.float32).ravel())
        schema = self._form.schema
        column = pa.FixedSizeListArray.from_arrays(values, type=schema.field("features").type)
        return pa.table([pa.array(keys, pa.string()), column], schema=schema)

    def write(self, path: Path, tables: Iterable[pa.Table]) -> None:
        """Writes the tables one after the other, whole or not at all."""
        metadata = {METADATA_KEY: json.dumps(self._own).encode()}
        with replacing(path) as scratch:
            self._form.write_to(scratch, tables, metadata=metadata, rows_per_group=self.rows_per_group)

    def tables(self, path: Path) -> Iterator[pa.Table]:
        """The row groups of a part."""
        with self._form.opened(path) as file:
            yield from file.groups()

    def keys(self, path: Path) -> list[str]:
        """The keys of a part, after all its pages were checked against their checksums.

        Raises:
            NotRows: the file is torn, damaged or of another kind, or holds features that are not finite.
            AnotherBackbone: it is a part of another backbone or width.
            FileNotFoundError: it was removed.
        """
        keys: list[str] = []
        with self._form.opened(path, checksums="verified") as file:
            self._check(file, size=path.stat().st_size)
            for table in file.groups():
                if not np.isfinite(self._values(table)).all():
                    raise NotRows("it holds features that are not finite")
                keys += table.column("key").to_pylist()
        return keys

    def copy(
        self,
        path: Path,
        *,
        rows: Int[np.ndarray, " k"],
        targets: Int[np.ndarray, " k"],
        into: Float32[np.ndarray, "n d"],
    ) -> None:
        """Copies the part's `rows` to the rows `targets` of `into`; one row group is in memory at a time."""
        begin = 0
        with self._form.opened(path) as file:
            for group, size in enumerate(file.group_rows):
                end = begin + size
                here = (rows >= begin) & (rows < end)
                if here.any():
                    table = file.read_group(group, ["features"])
                    into[targets[here]] = self._values(table)[rows[here] - begin]
                begin = end

    def _check(self, file: OpenTable, *, size: int) -> None:
        described = _described(file.metadata)
        if described is not None and described != self._own:
            raise AnotherBackbone(
                f"a folder holds the features of one backbone, here {_which(self._own)}, and these are of"
                f" {_which(described)}; name another folder, or move the file away"
            )
        if described is None:
            raise NotRows(self._form.foreign)
        file.require_columns()
        # a small file that claims many rows would fill the memory
        rows = sum(file.group_rows)
        if rows * 4 * self._dimensions > size:
            raise NotRows(f"it claims {rows:,} rows, more than {size:,} bytes can hold")

    def _values(self, table: pa.Table) -> Float32[np.ndarray, "n d"]:
        chunks = [chunk.flatten().to_numpy() for chunk in table.column("features").chunks]
        values = chunks[0] if len(chunks) == 1 else np.concatenate([np.empty(0, np.float32), *chunks])
        return np.asarray(values, np.float32).reshape(-1, self._dimensions)


def _described(metadata: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """A part's description of its backbone; None if the file is not a part."""
    try:
        plain = parse_json(metadata.get(METADATA_KEY, b""))
    except ValueError:
        return None
    return plain if isinstance(plain, dict) and plain.keys() == {"backbone", "dimensions"} else None


def _which(plain: dict[str, Any]) -> str:
    return f"backbone {plain['backbone']!s:.64} of {plain['dimensions']!s:.16} features"
