"""Preparing images: each is decoded once, brought to the working size and kept for `PreparedData` to map.

    DIRECTORY/hashes.json             hashes of the source files, so that unchanged ones are not read again
    DIRECTORY/<digest>/               pixels.bin and index.json: see `fissura.data.prepared`
    DIRECTORY/<digest>/verified.json  which pixels.bin was last compared with its CRCs

A cache folder is built aside and renamed, so it is whole or absent. Its digest names the sources' bytes,
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
    content_digest,
    digest_of,
    gone,
    require_same,
    said_of_changed,
    settled,
    signature,
    sources,
)
from fissura.data.dataset import Dataset
from fissura.data.decoding import WORKERS, Patch, decode_all
from fissura.data.lock import locked
from fissura.data.lost import LostCracks, said_of
from fissura.data.mask_rules import looks, mask_rules
from fissura.data.prepared import FORMAT, PIXELS, Index, PreparedData, PreparedSample, read_index, write_index
from fissura.data.resize import AnyResize
from fissura.data.turns import said_of_turns

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
    """Prepares the data sets in `directory`, or opens what stands there already.

    `content` is the digest (see `content_digest`) that the data had when the work began: what was prepared of
    that is opened whatever became of the files since, and nothing else is prepared.

    Where they stand already, unchanged source files are not read again, and pixels are compared with their
    CRCs only once; a torn cache is built anew. Of concurrent callers one builds and the others wait.
    `on_sample` is told how many samples are decoded, and of how many.

    Raises:
        DataError: with all bad samples at once; a folder that cannot be written. Nothing is half-written.
        DataChanged: the files are not those of `content`, and nothing was prepared of those.
    """
    if content is not None:
        known = _digest(content, resize)
        with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
            if _is_whole(directory / known, known, thorough=pool):
                return PreparedData.open(directory, known)
    found = sources(datasets)
    hashes = FileHashes(directory)
    held = digest_of(found, hashes.of(path for source in found for path in source.files))
    require_same(datasets, held=held, content=content or held)
    digest = _digest(held, resize)
    place = directory / digest
    if not _is_whole(place, digest, thorough=None):
        with _locked(directory):
            _remove_abandoned(directory)
            with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
                if not _is_whole(place, digest, thorough=pool):
                    _build(place, digest, found, hashes, resize, on_sample, pool)
    return PreparedData.open(directory, digest)


def _digest(content: str, resize: AnyResize) -> str:
    return digest_plain({"format": FORMAT, "content": content, "resize": resize.plain()})


def prune(directory: Path, *, keep_bytes: float) -> int:
    """Removes least recently used caches until the others hold at most `keep_bytes`; returns the bytes freed.

    Processes that have a removed cache open go on reading it. Nothing else in the folder is touched.
    """
    if not directory.is_dir():
        return 0
    freed = kept = 0
    with _locked(directory):
        _remove_abandoned(directory)
        own = [place for place in directory.iterdir() if OWN.fullmatch(place.name) and place.is_dir()]
        for place in sorted(own, key=lambda place: place.stat().st_mtime_ns, reverse=True):
            size = sum(path.stat().st_size for path in place.iterdir())
            kept += size
            if kept > keep_bytes:
                _remove(place)
                freed += size
    return freed


def _build(
    place: Path,
    digest: str,
    found: list[Source],
    hashes: FileHashes,
    resize: AnyResize,
    on_sample: Callable[[int, int], None] | None,
    pool: ThreadPoolExecutor,
) -> None:
    scratch = place.with_name(f".{digest}.{secrets.token_hex(4)}.tmp")
    try:
        with _writing(place.parent):
            scratch.mkdir()
            file = FileIO(scratch / PIXELS, "w")
        entries: list[PreparedSample] = []
        problems: list[str] = []
        seen = looks(found, resize, pool)
        rules = mask_rules(found, resize, seen)
        turned: list[str] = []
        datasets = [*{source.label: source.dataset for source in found}.values()]
        nearest, lost = (dict.fromkeys(rules, LostCracks()) for _ in range(2))
        with file:
            decoded = decode_all(found, resize, rules, seen, pool)
            for done, (source, patch) in enumerate(zip(found, decoded, strict=True), start=1):
                if isinstance(patch, list):
                    problems += patch
                elif not problems:
                    turned += [source.sample.name] if patch.doubtful_turn else []
                    nearest[source.label] += patch.nearest
                    lost[source.label] += patch.lost
                    with _writing(place.parent):
                        entries.append(_append(file, source, patch.planes))
                if on_sample is not None:
                    on_sample(done, len(found))
            if not problems:
                problems = said_of_changed(datasets, hashes.changed(), doing="it was prepared")
            if problems:
                raise DataError(*(gone(datasets) or problems))
            with _writing(place.parent):
                os.fsync(file.fileno())
                said = [
                    (label, said_of(resize, rule=rule, nearest=nearest[label], lost=lost[label]))
                    for label, rule in rules.items()
                ]
                remarks = [f"{label}: {line}" for label, line in said if line]
                remarks += said_of_turns(turned, total=len(found))
                write_index(scratch, digest, Index(tuple(entries), rules, tuple(remarks)))
                if place.exists():
                    _remove(place)
                scratch.replace(place)
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


def _is_whole(place: Path, digest: str, *, thorough: ThreadPoolExecutor | None) -> bool:
    """Whether the cache stands and is right. The pool compares the CRCs; without one, a cache whose CRCs were
    not compared before is not right."""
    pixels, stamp = place / PIXELS, place / VERIFIED
    try:
        entries, status = read_index(place, digest).entries, pixels.stat()
        with suppress(OSError, ValueError):
            if json.loads(stamp.read_text(encoding="utf-8")) == list(signature(status)):
                return True
        if thorough is None:
            return False
        data, keep = np.memmap(pixels, dtype=np.uint8, mode="r"), settled(status)
    except (OSError, ValueError):
        return False

    def right(entry: PreparedSample) -> bool:
        return zlib.crc32(data[entry.offset : entry.offset + entry.size].data) == entry.crc32

    if not all(thorough.map(right, entries)):
        return False
    if keep:
        with suppress(OSError):
            write_json(stamp, list(signature(status)))
    return True


def _remove_abandoned(directory: Path) -> None:
    """Removes what a killed builder left; no other builds while the folder is locked."""
    for place in directory.iterdir():
        if ABANDONED.fullmatch(place.name):
            _remove(place)


def _remove(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


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
