"""One digest of the content of image sets: the files' bytes, splits and groups, not their paths."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataChanged, DataError
from fissura.core.files import sha256
from fissura.core.spec import digest
from fissura.data.dataset import Dataset
from fissura.data.dataset_names import PLACE, name_of, unique_names
from fissura.data.memo import recall, remember
from fissura.data.sample import Sample

Signature = tuple[int, ...]
Decoded = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"] | None]

SETTLED_NS = 100_000_000  # file systems' clocks tick at least every 10 ms: a later change shows in the times
MEMO = "hashes.json"
MEMO_ENTRIES = 1_000_000


@dataclass(frozen=True)
class Source:
    """A sample with its data set; `label` is unique among the data sets of one preparation, as is
    `data_name`, for people."""

    label: str
    dataset: Dataset
    sample: Sample
    data_name: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The sample's files."""
        own = self.sample
        return (own.image, own.mask) if own.valid is None else (own.image, own.mask, own.valid)

    def read(self, *, mask: UInt8[np.ndarray, "h w"] | None = None) -> Decoded:
        """Image, mask (0, 1) and valid pixels (0, 1; None: all), at their own size. A given `mask` is not
        decoded again.

        Raises:
            DataError: with all problems of the sample's files.
        """
        dataset, sample, planes, problems = self.dataset, self.sample, list[Any](), list[str]()

        def size() -> tuple[int, ...] | None:
            return planes[0].shape[:2] if planes and not problems else None

        readers: tuple[Callable[[], Any], ...] = (
            lambda: dataset.read_image(sample),
            lambda: dataset.inspect_mask(sample, size=size()).mask if mask is None else mask,
            lambda: dataset.read_valid(sample, size=size()),
        )
        for read in readers:
            try:
                planes.append(read())
            except DataError as error:
                problems += error.problems
            except OSError as error:
                name = error.filename or self.sample.image
                problems.append(f"{name}: cannot be read: {error.strerror or error}")
        if problems:
            raise DataError(*dict.fromkeys(problems))
        image, read_mask, valid = planes
        return image, read_mask, valid


def sources(datasets: Sequence[Dataset]) -> list[Source]:
    """All samples of all data sets, in order. A data set's label is its kind; a second one's is `KIND-2`.

    Raises:
        DataError: with the problems of all data sets at once.
    """
    samples: list[Source] = []
    problems: list[str] = []
    labels = unique_names(dataset.kind for dataset in datasets)
    names = unique_names(name_of(dataset.plain()) for dataset in datasets)
    for label, name, dataset in zip(labels, names, datasets, strict=True):
        try:
            samples += [Source(label, dataset, sample, name) for sample in dataset.samples()]
        except DataError as error:
            problems += error.problems
    if not problems and not samples:
        problems.append("no image to prepare: name at least one data set that has images")
    if problems:
        raise DataError(*problems)
    return samples


def notes_of(datasets: Sequence[Dataset]) -> list[str]:
    """A line for each folder of the data sets with files that are left out."""
    return [note for dataset in datasets for note in dataset.find().notes]


def content_digest(datasets: Sequence[Dataset], *, directory: Path | None = None) -> str:
    """Sixteen hex digits that identify the data sets' content: the bytes of all files, options, names, splits
    and groups. With the cache folder `directory`, unchanged files are not read again.

    Raises:
        DataError: with all problems of the layouts, or all unreadable files, at once.
    """
    samples = sources(datasets)
    return digest_of(samples, FileHashes(directory).of(path for source in samples for path in source.files))


def digest_of(samples: Sequence[Source], hashes: dict[Path, str]) -> str:
    """`content_digest` of samples whose files' hashes are known."""
    return digest(
        [
            {
                "label": source.label,
                "options": {key: value for key, value in source.dataset.plain().items() if key not in PLACE},
                "sample": [source.sample.name, source.sample.split, source.sample.group],
                "files": [hashes[path] for path in source.files],
            }
            for source in samples
        ]
    )


def require_same(datasets: Sequence[object], *, held: str, content: str) -> None:
    """Checks that the data sets' digest now, `held`, is still `content`.

    Raises:
        DataChanged: it is not.
    """
    if held != content:
        raise DataChanged(
            f"{', '.join(map(str, datasets))}: the images, masks or labels changed since the work on them"
            f" began (they were {content}, and are {held} now), and old and new are never mixed; put them"
            " back and go on, or begin anew with what there is now"
        )


def missing_folders(datasets: Sequence[Dataset]) -> list[str]:
    """A line for each data set whose folder was removed."""
    return [
        f"{dataset.root}: the data's folder is no longer there, so it was moved, renamed or unmounted since"
        " the work on it began; put it back, or name where it lies now with --data"
        for dataset in datasets
        if not dataset.root.is_dir()
    ]


def change_lines(datasets: Sequence[Dataset], changed: Sequence[Path], *, doing: str) -> list[str]:
    """A line for each data set whose folder was removed, and one for each other file that `changed` while
    `doing`."""
    roots = [dataset.root for dataset in datasets if not dataset.root.is_dir()]
    elsewhere = (path for path in changed if not any(path.is_relative_to(root) for root in roots))
    return [*missing_folders(datasets), *(f"{path}: changed while {doing}; try again" for path in elsewhere)]


def signature(status: os.stat_result) -> Signature:
    """Values that change when a file does: the ctime even where a tool restores size and mtime."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def settled(status: os.stat_result) -> bool:
    """Whether a later change would show in the file's times."""
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS


class FileHashes:
    """SHA-256 of files, remembered in `directory/hashes.json`: unchanged files are not read again."""

    def __init__(self, directory: Path | None) -> None:
        self._memo = None if directory is None else directory / MEMO
        self.signatures: dict[Path, Signature] = {}

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The hash of each file; `signatures` keeps the files' signatures at that time.

        Raises:
            DataError: with all unreadable files at once.
        """
        known, paths = self._load(), list(dict.fromkeys(paths))
        hashes: dict[Path, str] = {}
        fresh: dict[str, list[int | str]] = {}
        problems = []

        def look(path: Path) -> tuple[os.stat_result, str] | str:
            try:
                status = path.stat()
                entry = known.get(str(path.absolute()))
                if entry is not None and entry[:-1] == list(signature(status)):
                    return status, str(entry[-1])
                keep = settled(status)
                value = sha256(path)
            except OSError as error:
                return f"{path}: cannot be read: {error.strerror or error}"
            if keep:
                fresh[str(path.absolute())] = [*signature(status), value]
            return status, value

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for path, result in zip(paths, pool.map(look, paths), strict=True):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    self.signatures[path], hashes[path] = signature(result[0]), result[1]
        if fresh:
            remember(self._memo, dict(list({**known, **fresh}.items())[-MEMO_ENTRIES:]))
        if problems:
            raise DataError(*problems)
        return hashes

    def changed(self) -> list[Path]:
        """The files that changed since they were hashed."""
        return [path for path, before in self.signatures.items() if _signature_now(path) != before]

    def _load(self) -> dict[str, list[int | str]]:
        loaded = recall(self._memo, whole=lambda plain: isinstance(plain, dict)) or {}
        return {path: entry for path, entry in loaded.items() if isinstance(entry, list) and len(entry) == 6}


def _signature_now(path: Path) -> Signature | None:
    try:
        return signature(path.stat())
    except OSError:
        return None
