"""The results of a batch: exactly one row per image, whenever a process dies.

OUT/batch.json                      what was asked
OUT/results/part-000000.parquet     rows as they come; written aside, then renamed
OUT/masks|probabilities|overlays/   pictures, each before its image's row
OUT/results.parquet                 all rows, sorted by image, once every image has one; the parts are removed
"""

import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field

from fissura.batches.pictures import KINDS, Kind, picture_path, picture_stems
from fissura.batches.rows import Row, failed_row, merged, read_rows, schema, scored_row, write_rows
from fissura.batches.scorer import Scored
from fissura.core.errors import DataError
from fissura.core.files import check_writable, remove_abandoned, replacing, write_json
from fissura.core.progress import Say, silent
from fissura.core.spec import Spec, digest
from fissura.data.lock import claimed
from fissura.records.table import NotRows

QUESTION, PARTS, RESULTS = "batch.json", "results", "results.parquet"
ROWS_A_PART, SECONDS_A_PART = 256, 30.0
Failed = Literal["keep", "retry"]
_PART_NAME = re.compile(r"part-(\d{6,9})\.parquet")
_INVALID_NAME = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class Question(Spec):
    """What a batch asks; only the same question can resume it.

    `source` names the images. `model` and `version` are None if no service hosts the run. `threshold` (0..1)
    is a segmentation's, `mm_per_pixel` the scale of its lengths, `pictures` what is kept.
    """

    source: str
    model: str | None = None
    run: str
    version: int | None = None
    task: str
    threshold: float | None = Field(None, ge=0, le=1)
    mm_per_pixel: float | None = Field(None, gt=0)
    pictures: tuple[Kind, ...] = ()


@contextmanager
def open_sink(
    out: Path,
    question: Question,
    names: Iterable[str],
    *,
    failed: Failed = "keep",
    rows: int = ROWS_A_PART,
    seconds: float = SECONDS_A_PART,
    clock: Callable[[], float] = time.monotonic,
    say: Say = silent,
) -> Iterator["Sink"]:
    """The folder `out` for the results of `names`, locked for the block against other writers.

    It resumes existing results. Rows of images that `failed` are kept, or the images are retried. A part is
    written when it has so many `rows`, or its oldest row has waited for so many `seconds`. `say` reports
    skipped files.

    Raises:
        DataError: another process writes there, or the folder does not belong to this batch.
    """
    check_writable(out)
    refusal = DataError(f"{out}: another process writes its results here; wait for it, or name another --out")
    with claimed(out, refusal=refusal):
        _check_question(out, question)
        for folder, _, _ in [entry for top in (PARTS, *KINDS) for entry in os.walk(out / top)]:
            remove_abandoned(Path(folder))
        remove_abandoned(out)
        sink = Sink(out, question, names, failed=failed, limits=(rows, seconds), clock=clock, say=say)
        yield sink


def _check_question(out: Path, question: Question) -> None:
    """Writes the question, or compares it with the one in the folder."""
    path = out / QUESTION
    if not path.exists():
        foreign = [name for name in (PARTS, RESULTS, *KINDS) if (out / name).exists()]
        if foreign:
            raise DataError(
                f"{out}: results go into a folder of their own: this one holds {', '.join(foreign)} of"
                " something else; name another --out"
            )
        write_json(path, question.plain())
        return
    recorded = Question.load_file(path)
    current, before = question.plain(), recorded.plain()
    different = [
        f"`{name}` {before[name]!r}, not {current[name]!r}"
        for name in current
        if current[name] != before[name]
    ]
    if different:
        raise DataError(
            f"{out}: a batch goes on as it began: this one was begun with {', '.join(different)}; ask the"
            " same again, or name another --out"
        )


class Sink:
    """The results in one folder, as `open_sink` gives it. Many threads may use it at once.

    `done` are the images that have a row, `failed` those among them that have no result.
    """

    def __init__(
        self,
        out: Path,
        question: Question,
        names: Iterable[str],
        *,
        failed: Failed,
        limits: tuple[int, float],
        clock: Callable[[], float],
        say: Say,
    ) -> None:
        self.out, self.question = out, question
        self.stems = picture_stems(names)
        self._digest = digest(question.plain())
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._pending: list[Row] = []
        self._oldest_pending = clock()
        self._next = max((_number(path) + 1 for path in self._parts()), default=0)
        known = self._known(say)
        if failed == "retry":
            known = known.filter(known.column("error").is_null())
        self.done: set[str] = set(known.column("image").to_pylist())
        self.failed: set[str] = set(
            known.filter(known.column("error").is_valid()).column("image").to_pylist()
        )

    def add(self, name: str, scored: Scored) -> None:
        """Keeps the pictures of an image, then its row.

        Raises:
            OSError: they cannot be written; the row is not kept either.
        """
        try:
            for kind in self.question.pictures:
                if kind in scored.pictures:
                    with replacing(picture_path(self.out, kind, self.stems[name])) as scratch:
                        scratch.write_bytes(scored.pictures[kind])
        except OSError as error:
            if error.errno not in _INVALID_NAME:
                raise
            problem = f"{name}: no picture can have its name ({error.strerror}); rename the image"
            self._add_row(failed_row(name, problem, sha256=scored.result.image.sha256))
        else:
            self._add_row(scored_row(name, scored.result))

    def fail(self, name: str, error: str, *, photograph: bytes | None = None) -> None:
        """Keeps the row of an image that cannot be scored; `photograph` are its bytes, if known.

        Raises:
            OSError: it cannot be written.
        """
        sha256 = None if photograph is None else hashlib.sha256(photograph).hexdigest()
        self._add_row(failed_row(name, error, sha256=sha256))

    def flush(self) -> None:
        """Writes the pending rows.

        Raises:
            OSError: they cannot be written, and stay pending.
        """
        with self._lock:
            self._flush()

    def finish(self) -> Path:
        """Puts all rows into `results.parquet`, removes the parts, and gives its path.

        Raises:
            OSError: it cannot be written; the parts stay.
        """
        self.flush()
        results = self.out / RESULTS
        before = [read_rows(results, question=self._digest)] if results.exists() else []
        parts: dict[Path, pa.Table] = {}
        for path in self._parts():
            with suppress(NotRows):  # reported when the sink was opened
                parts[path] = read_rows(path, question=self._digest)
        if parts or not before:
            write_rows(results, merged([*before, *parts.values()]), question=self._digest)
        for path in parts:
            path.unlink()
        with suppress(OSError):  # foreign files stay
            (self.out / PARTS).rmdir()
        return results

    def _known(self, say: Say) -> pa.Table:
        """Image and error of each existing row."""
        tables, columns = [], ["image", "error"]
        results = self.out / RESULTS
        if results.exists():
            try:
                tables.append(read_rows(results, question=self._digest, columns=columns))
            except NotRows as error:
                raise DataError(f"{results}: {error}; move it away, or name another --out") from None
        for path in self._parts():
            try:
                tables.append(read_rows(path, question=self._digest, columns=columns))
            except NotRows as error:
                say(f"passed over {path}: {error}; what it may hold is scored again")
        return merged(tables)

    def _parts(self) -> list[Path]:
        """The files of parts, the oldest first."""
        folder = self.out / PARTS
        parts = (
            [path for path in folder.iterdir() if _PART_NAME.fullmatch(path.name)] if folder.is_dir() else []
        )
        return sorted(parts, key=_number)

    def _add_row(self, row: Row) -> None:
        most, seconds = self._limits
        with self._lock:
            if not self._pending:
                self._oldest_pending = self._clock()
            self._pending.append(row)
            self.done.add(row["image"])
            (self.failed.add if row.get("error") else self.failed.discard)(row["image"])
            if len(self._pending) >= most or self._clock() - self._oldest_pending >= seconds:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            table = pa.Table.from_pylist(self._pending, schema=schema())
            write_rows(self.out / PARTS / f"part-{self._next:06d}.parquet", table, question=self._digest)
            self._pending = []
            self._next += 1


def _number(part: Path) -> int:
    return int(part.stem.removeprefix("part-"))
