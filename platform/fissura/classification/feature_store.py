"""Features on disk: a folder of Parquet parts that many processes write and read at the same time.

    DIRECTORY/<nanoseconds>-<token>.parquet    16 hex digits each: the names sort by age

A part is written aside and renamed, so it is whole or absent, and it is never changed afterwards. Where parts
hold the same key the oldest one's features are read, so that a key's features never change.
"""

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from fissura.classification.feature_part import AnotherBackbone, PartFormat
from fissura.core.errors import DataError
from fissura.records.table import NotRows

SUFFIX = ".parquet"
MANY_PARTS = 16
ABANDONED_SECONDS = 24 * 3600
NAMED = 5

_KEY = re.compile(r"[0-9a-f]{16,128}")


class SkippedPart(NamedTuple):
    """A Parquet file that is not a whole part, and why."""

    path: Path
    reason: str


class FeatureStore:
    """The features of one backbone, by the content hash of the image.

    `backbone_digest` names the backbone and its weights (`features.backbone_digest`), and
    `dimensions` is the width d of its features. Nothing is read or written before a method is called.
    """

    def __init__(self, directory: Path, *, backbone_digest: str, dimensions: int) -> None:
        self.directory = directory.absolute()  # `a:b/c` would be read as a URL
        self.backbone_digest, self.dimensions = backbone_digest, dimensions
        self._format = PartFormat(backbone_digest=backbone_digest, dimensions=dimensions)
        self._parts: dict[Path, list[str]] = {}
        self._skipped: list[SkippedPart] = []

    @property
    def skipped(self) -> list[SkippedPart]:
        """The files that the last reading of the folder skipped, sorted by path."""
        return list(self._skipped)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that have no features here, each once, in the order given.

        Reads new parts whole and skips damaged ones.

        Raises:
            DataError: naming every part that is another backbone's.
        """
        index = self._index()
        return [key for key in dict.fromkeys(keys) if key not in index]

    def write(self, keys: Sequence[str], features: Float32[np.ndarray, "n d"]) -> Path:
        """Writes a new part, whole or not at all, and returns its path.

        Raises:
            DataError: features that are not finite, with the keys of their images, or a folder that cannot
                be written; nothing was written.
            ValueError: a key is not a hex digest, or the shapes do not fit.
        """
        if not keys or features.shape != (len(keys), self.dimensions):
            raise ValueError(
                f"{len(keys)} keys, at least one, have features [{len(keys)}, {self.dimensions}], not"
                f" {list(features.shape)}"
            )
        foreign = [key for key in keys if not _KEY.fullmatch(key)]
        if foreign:
            raise ValueError(f"a key is a hex digest of 16 to 128 digits, not {foreign[0]!r}")
        finite = np.isfinite(features).all(axis=1)
        if not finite.all():
            rows = zip(keys, features, finite, strict=True)
            raise DataError(*(_not_finite(key, row) for key, row, good in rows if not good))
        path = self.directory / f"{time.time_ns():016x}-{secrets.token_hex(8)}{SUFFIX}"
        self._write(path, [self._format.table(keys, features)])
        return path

    def read(self, keys: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """The features of `keys`, in their order; a key may be named more than once.

        Raises:
            DataError: some keys have no features here, or a part is another backbone's.
        """
        while True:
            index = self._index()
            absent = [key for key in dict.fromkeys(keys) if key not in index]
            if absent:
                raise DataError(
                    f"{self.directory}: every image must have features, {_some(absent)} of"
                    f" {len(set(keys))} have none; extract them first{self._passed_over()}"
                )
            # another process may have just merged parts: look again
            with suppress(FileNotFoundError):
                return self._gather([index[key] for key in keys])

    def compact(self, *, at_least: int = MANY_PARTS) -> Path | None:
        """Merges the parts into one if there are `at_least` as many (and two or more); returns its path.

        Other processes may read, write and merge meanwhile. Removes files that killed writers left a day ago;
        files that are not parts stay.

        Raises:
            DataError: a part is another backbone's, or the folder cannot be written.
        """
        self._remove_abandoned()
        self._index()
        parts = sorted(self._parts)
        if len(parts) < max(2, at_least):
            return None
        oldest = parts[0].name.partition("-")[0]
        path = self.directory / f"{oldest}-{secrets.token_hex(8)}{SUFFIX}"
        try:
            self._write(path, self._merged(parts))
        except _Gone:
            return None
        for part in parts:
            part.unlink(missing_ok=True)
        return path

    def _index(self) -> dict[str, tuple[Path, int]]:
        """The part and the row of each key. Reads only new parts."""
        paths = sorted(self.directory.glob(f"[!.]*{SUFFIX}")) if self.directory.is_dir() else []
        parts: dict[Path, list[str]] = {}
        skipped, refused = [], []
        for path in paths:
            try:
                parts[path] = self._parts.get(path) or self._format.keys(path)
            except FileNotFoundError:
                continue
            except AnotherBackbone as error:
                refused.append(f"{path}: {error}")
            except NotRows as error:
                skipped.append(SkippedPart(path, str(error)))
        self._parts, self._skipped = parts, skipped
        if refused:
            raise DataError(*refused)
        index: dict[str, tuple[Path, int]] = {}
        for path, keys in parts.items():
            for row, key in enumerate(keys):
                index.setdefault(key, (path, row))
        return index

    def _gather(self, sources: list[tuple[Path, int]]) -> Float32[np.ndarray, "n d"]:
        features = np.empty((len(sources), self.dimensions), np.float32)
        targets: dict[Path, list[int]] = {}
        for target, (path, _) in enumerate(sources):
            targets.setdefault(path, []).append(target)
        for path, own in targets.items():
            rows = np.array([sources[target][1] for target in own])
            self._format.copy(path, rows=rows, targets=np.array(own), into=features)
        return features

    def _merged(self, parts: list[Path]) -> Iterator[pa.Table]:
        """Every key once, in tables of at least a row group."""
        seen: set[str] = set()
        waiting: list[pa.Table] = []
        for table in self._tables(parts):
            fresh = []
            for key in table.column("key").to_pylist():
                fresh.append(key not in seen)
                seen.add(key)
            waiting.append(table.filter(pa.array(fresh, pa.bool_())))
            if sum(map(len, waiting)) >= self._format.rows_per_group:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def _tables(self, parts: list[Path]) -> Iterator[pa.Table]:
        try:
            for part in parts:
                yield from self._format.tables(part)
        except FileNotFoundError:
            raise _Gone from None

    def _write(self, path: Path, tables: Iterable[pa.Table]) -> None:
        try:
            self._format.write(path, tables)
        except OSError as error:
            raise DataError(
                f"{self.directory}: features cannot be written here ({error.strerror or error}); free some"
                " space, or name another folder for them"
            ) from None

    def _passed_over(self) -> str:
        if not self._skipped:
            return ""
        return "; passed over: " + ", ".join(f"{part.path.name} ({part.reason})" for part in self._skipped)

    def _remove_abandoned(self) -> None:
        for path in self.directory.glob(f".*{SUFFIX}.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()


class _Gone(Exception):
    """Another process has merged the parts."""


def _not_finite(key: str, features: Float32[np.ndarray, " d"]) -> str:
    count = int((~np.isfinite(features)).sum())
    return (
        f"image {key}: features must be finite numbers, {count} of {len(features)} are not; look at the"
        " weights of the backbone, or leave the image out"
    )


def _some(keys: list[str]) -> str:
    named = ", ".join(key[:16] for key in keys[:NAMED])
    return f"{len(keys)} ({named}{', ...' if len(keys) > NAMED else ''})"
