"""Prepares images: each is decoded once, resized to the working size and kept for `PreparedData` to map.

    DIRECTORY/hashes.json             hashes of the source files, so that unchanged ones are not read again
    DIRECTORY/<digest>/               pixels.bin and index.json: see `fissura.data.prepared`
    DIRECTORY/<digest>/verified.json  the pixels.bin that was last compared with its CRCs

A cache folder is built aside and renamed, so it is whole or absent. Its digest covers the sources' bytes,
splits and groups and the resize, so it never goes stale: changed sources have another digest.
"""

import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

import numpy as np

from fissura.core.errors import DataError
from fissura.core.files import write_json
from fissura.core.spec import digest as digest_plain
from fissura.data.content import (
    FileHashes,
    Source,
    change_lines,
    content_digest,
    digest_of,
    missing_folders,
    require_same,
    settled,
    signature,
    sources,
)
from fissura.data.dataset import Dataset
from fissura.data.decoding import WORKERS, Patch, decode_all
from fissura.data.lock import locked
from fissura.data.lost import LostCracks, loss_line
from fissura.data.mask_rules import inspect_masks, mask_rules
from fissura.data.prepared import FORMAT, PIXELS, Index, PreparedData, PreparedSample, read_index, write_index
from fissura.data.resize import AnyResize
from fissura.data.turns import turn_warnings

__all__ = ["PreparedData", "PreparedSample", "content_digest", "default_cache", "prepare", "prune"]

VERIFIED = "verified.json"
OWN = re.compile(r"[0-9a-f]{16}")
ABANDONED = re.compile(r"\.[0-9a-f]{16}\.[0-9a-f]{8}\.tmp")


def default_cache() -> Path:
    """The folder for prepared images in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fissura"


def prepare(
    datasets: Sequence[Dataset],
    *,
    resize: AnyResize,
    directory: Path,
    content: str | None = None,
    on_sample: Callable[[int, int], None] | None = None,
) -> PreparedData:
    """Prepares the data sets in `directory`, or opens them if it holds them.

    `content` is the digest (see `content_digest`) that the data had when the work began: data prepared from
    it are opened even if the files have changed since, and no other data are prepared.

    Unchanged source files are not read again, and pixels are compared with their CRCs only once; a torn cache
    is built again. Of concurrent callers one builds and the others wait. `on_sample` is called with the
    number of decoded samples and of all.

    Raises:
        DataError: with all bad samples at once; a folder that cannot be written. Nothing is half-written.
        DataChanged: the files are not those of `content`, which were not prepared before.
    """
    if content is not None:
        known = _digest(content, resize)
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
            if _is_whole(directory / known, known, thorough=pool):
                return PreparedData.open(directory, known)
    samples = sources(datasets)
    hashes = FileHashes(directory)
    held = digest_of(samples, hashes.of(path for source in samples for path in source.files))
    require_same(datasets, held=held, content=content or held)
    digest = _digest(held, resize)
    folder = directory / digest
    if not _is_whole(folder, digest, thorough=None):
        with _locked(directory):
            _remove_abandoned(directory)
            with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
                if not _is_whole(folder, digest, thorough=pool):
                    _build(folder, digest, samples, hashes, resize, on_sample, pool)
    return PreparedData.open(directory, digest)


def _digest(content: str, resize: AnyResize) -> str:
    return digest_plain({"format": FORMAT, "content": content, "resize": resize.plain()})


def prune(directory: Path, *, keep_bytes: float) -> int:
    """Removes least recently used caches until the others hold at most `keep_bytes`; returns the bytes freed.

    Processes that have a removed cache open can still read it. Nothing else in the folder is touched.
    """
    if not directory.is_dir():
        return 0
    freed = kept = 0
    with _locked(directory):
        _remove_abandoned(directory)
        own = [folder for folder in directory.iterdir() if OWN.fullmatch(folder.name) and folder.is_dir()]
        for folder in sorted(own, key=lambda folder: folder.stat().st_mtime_ns, reverse=True):
            size = sum(path.stat().st_size for path in folder.iterdir())
            kept += size
            if kept > keep_bytes:
                _remove(folder)
                freed += size
    return freed


def _build(
    folder: Path,
    digest: str,
    samples: list[Source],
    hashes: FileHashes,
    resize: AnyResize,
    on_sample: Callable[[int, int], None] | None,
    pool: ThreadPoolExecutor,
) -> None:
    scratch = folder.with_name(f".{digest}.{secrets.token_hex(4)}.tmp")
    try:
        with _writing(folder.parent):
            scratch.mkdir()
            file = FileIO(scratch / PIXELS, "w")
        entries: list[PreparedSample] = []
        problems: list[str] = []
        inspected = inspect_masks(samples, resize, pool)
        rules = mask_rules(samples, resize, inspected)
        turned: list[str] = []
        datasets = [*{source.label: source.dataset for source in samples}.values()]
        nearest, lost = (dict.fromkeys(rules, LostCracks()) for _ in range(2))
        with file:
            decoded = decode_all(samples, resize, rules, inspected, pool)
            for done, (source, patch) in enumerate(zip(samples, decoded, strict=True), start=1):
                if isinstance(patch, list):
                    problems += patch
                elif not problems:
                    turned += [source.sample.name] if patch.doubtful_turn else []
                    nearest[source.label] += patch.nearest
                    lost[source.label] += patch.lost
                    with _writing(folder.parent):
                        entries.append(_append(file, source, patch.planes))
                if on_sample is not None:
                    on_sample(done, len(samples))
            if not problems:
                problems = change_lines(datasets, hashes.changed(), doing="it was prepared")
            if problems:
                raise DataError(*(missing_folders(datasets) or problems))
            with _writing(folder.parent):
                os.fsync(file.fileno())
                lines = [
                    (label, loss_line(resize, rule=rule, nearest=nearest[label], lost=lost[label]))
                    for label, rule in rules.items()
                ]
                remarks = [f"{label}: {line}" for label, line in lines if line]
                remarks += turn_warnings(turned, total=len(samples))
                write_index(scratch, digest, Index(tuple(entries), rules, tuple(remarks)))
                if folder.exists():
                    _remove(folder)
                scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _append(file: FileIO, source: Source, patch: Patch) -> PreparedSample:
    offset, crc = file.tell(), 0
    for plane in patch:
        view = np.ascontiguousarray(plane).data.cast("B")
        crc = zlib.crc32(view, crc)
        while view:
            view = view[file.write(view) :]
    height, width = patch[1].shape
    sample = source.sample
    return PreparedSample(source.label, sample.name, sample.split, sample.group, height, width, offset, crc)


def _is_whole(folder: Path, digest: str, *, thorough: ThreadPoolExecutor | None) -> bool:
    """Whether the cache is whole. The pool compares the CRCs; without one, a cache whose CRCs were not
    compared before is not whole."""
    pixels, stamp = folder / PIXELS, folder / VERIFIED
    try:
        entries, status = read_index(folder, digest).entries, pixels.stat()
        with suppress(OSError, ValueError):
            if json.loads(stamp.read_text(encoding="utf-8")) == list(signature(status)):
                return True
        if thorough is None:
            return False
        data, keep = np.memmap(pixels, dtype=np.uint8, mode="r"), settled(status)
    except (OSError, ValueError):
        return False

    def intact(entry: PreparedSample) -> bool:
        return zlib.crc32(data[entry.offset : entry.offset + entry.size].data) == entry.crc32

    if not all(thorough.map(intact, entries)):
        return False
    if keep:
        with suppress(OSError):
            write_json(stamp, list(signature(status)))
    return True


def _remove_abandoned(directory: Path) -> None:
    """Removes what killed builders left: nobody else builds while the folder is locked."""
    for folder in directory.iterdir():
        if ABANDONED.fullmatch(folder.name):
            _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with ExitStack() as stack:
        with _writing(directory):
            stack.enter_context(locked(directory))
        yield


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{directory}: prepared images cannot be written here ({error.strerror or error}); "
            "free some space, or name another folder for them"
        ) from None
