"""Groups files that show the same scene: exact and near duplicates, kept by the files' hashes.

DIRECTORY/groups-<digest>.json   the sets of duplicates among the files of one set of hashes
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fissura.core.errors import DataError
from fissura.core.spec import digest
from fissura.data.content import FileHashes
from fissura.data.duplicates import LEAST_CORRELATION, MOST_BITS, Fingerprint, duplicates, fingerprint
from fissura.data.images import read_rgb
from fissura.data.memo import recall, remember

RULE = 1  # raised whenever the same files are put into other groups


def alike(paths: Sequence[Path], *, directory: Path | None) -> dict[Path, Path]:
    """For each path the first of `paths` that shows the same image: pixel for pixel, or nearly so after a
    flip or a turn. Files that are not readable images match only byte-for-byte copies.

    With the cache folder `directory`, a second call with the same files decodes none of them.

    Raises:
        DataError: with all files that cannot be opened.
    """
    hashes = FileHashes(directory).of(paths)
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(hashes[path], path)
    known = digest([RULE, MOST_BITS, LEAST_CORRELATION, sorted(first)])
    memo = None if directory is None else directory / f"groups-{known}.json"
    sets = recall(memo, whole=_whole)
    if sets is None:
        sets = _compare(first)
        remember(memo, sets)
    leader = {value: value for value in first}
    order = {value: index for index, value in enumerate(first)}
    for members in sets:
        held = sorted((value for value in members if value in order), key=order.__getitem__)
        leader.update(dict.fromkeys(held, held[0] if held else ""))
    return {path: first[leader[hashes[path]]] for path in paths}


def _compare(files: dict[str, Path]) -> list[list[str]]:
    """The sets of at least two duplicates, by the files' hashes."""

    def look(path: Path) -> Fingerprint | None:
        try:
            return fingerprint(read_rgb(path))
        except DataError:
            return None  # reported when it is read

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = zip(files, pool.map(look, files.values()), strict=True)
        prints = {value: print_ for value, print_ in results if print_ is not None}
    return _connected((pair.first, pair.second) for pair in duplicates(prints))


def _connected(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The connected components of the graph with these edges."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := root.setdefault(name, name)) != name:
            root[name] = root[above]
            name = above
        return name

    for first, second in pairs:
        root[find(first)] = find(second)
    components: defaultdict[str, list[str]] = defaultdict(list)
    for name in list(root):
        components[find(name)].append(name)
    return [sorted(members) for members in components.values()]


def _whole(loaded: Any) -> bool:
    return isinstance(loaded, list) and all(
        isinstance(members, list) and all(isinstance(value, str) for value in members) for members in loaded
    )
