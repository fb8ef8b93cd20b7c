"""Fetches a data set from its publisher with pooch; checks every file's size and SHA-256.

A file gets its name only when it is right: an interrupted fetch resumes with the missing files. The synthetic
set is drawn instead.
"""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from fissura.core.errors import DataError
from fissura.core.files import sha256
from fissura.core.text import nearest
from fissura.data.lock import locked
from fissura.data.mirrors import (
    CFD_MIRROR,
    PATIENCE,
    check_address,
    check_network,
    check_redirect,
    is_loopback,
)
from fissura.data.synthetic import SyntheticSpec, write

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from pooch import Pooch
    from requests.exceptions import RequestException

FETCHED = ("cfd", "synthetic")
CONNECTIONS = 4
SILENCE = 10.0  # seconds without data before a connection is given up
DELAYS = (0.3, 1.5)  # seconds before the second and the third attempt at a file
MOST_FAILURES = 5  # files that may fail before the fetch gives up
CHUNK = 1 << 16  # bytes
REMEDY = "run the fetch again, or name another mirror"


@dataclass(frozen=True)
class KnownFile:
    """A file of a data set as its publisher serves it."""

    path: str
    size: int  # bytes
    sha256: str

    def is_in(self, directory: Path) -> bool:
        """Whether `directory` holds the file with this size and SHA-256."""
        path = directory / self.path
        return path.is_file() and path.stat().st_size == self.size and sha256(path) == self.sha256


def known_files(name: str) -> tuple[KnownFile, ...]:
    """The table of a data set's files, sorted by path."""
    table = json.loads(files("fissura.data.datasets").joinpath(f"{name}_files.json").read_text("utf-8"))
    return tuple(KnownFile(path, size, digest) for path, (size, digest) in sorted(table.items()))


def fetch(
    name: str,
    directory: Path,
    *,
    mirror: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Puts the data set `name` into `directory`.

    `cfd` is downloaded from `mirror` (an https folder, or http on the loopback), by default the publisher's;
    right files in `directory` are kept, others of those names are replaced. `synthetic` is drawn from the
    default spec. `on_progress` is called with what is done and the total: bytes for `cfd`, images for
    `synthetic`.

    Raises:
        DataError: no such data set; one that only its publisher distributes; no network (within 5 seconds); a
            mirror that fails or sends wrong bytes; a folder that cannot be written.
    """
    if name == "cfd":
        download(known_files("cfd"), directory, mirror=mirror or CFD_MIRROR, on_progress=on_progress)
    elif name != "synthetic":
        raise DataError(_no_fetcher(name))
    elif mirror is not None:
        raise DataError(f"`synthetic` is drawn on this machine and has no mirror: leave out `{mirror}`")
    else:
        write(SyntheticSpec(), directory, on_image=on_progress)


def _no_fetcher(name: str) -> str:
    from fissura.data.datasets import kinds
    from fissura.data.labelled import labelled_kinds

    known = {**kinds(), **labelled_kinds()}
    if name in known:
        return f"`{name}` cannot be fetched by this program; obtain it yourself: {known[name].info.obtain}"
    return f"`{name}` is no data set{nearest(name, known)} (to be fetched: {', '.join(FETCHED)})"


def download(
    known: tuple[KnownFile, ...],
    directory: Path,
    *,
    mirror: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Downloads missing or wrong files to `directory`, a few at a time; see `fetch`."""
    check_address(mirror)
    made = not directory.exists()
    if made:
        check_network(mirror)  # first: without a network no folder is made
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{directory}: the folder cannot be made: {error.strerror}; name another one"
        ) from None
    with locked(directory):
        missing = [file for file in known if not file.is_in(directory)]
        total = sum(file.size for file in known)
        done = total - sum(file.size for file in missing)
        if on_progress is not None:
            on_progress(done, total)
        if not missing:
            return
        check_network(mirror)
        mirrored = _Mirror(mirror, missing, directory)
        problems: list[str] = []
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            futures = {pool.submit(mirrored.fetch, file): file for file in missing}
            try:
                for future in as_completed(futures):
                    problem = future.result()
                    if problem is None:
                        done += futures[future].size
                        if on_progress is not None:
                            on_progress(done, total)
                    elif problem:
                        problems.append(problem)
                    if len(problems) == MOST_FAILURES:
                        mirrored.stop.set()
            finally:
                mirrored.stop.set()
                pool.shutdown(cancel_futures=True)
        if problems:
            _remove_empty(known, directory, made=made)
            raise DataError(*problems)


def _remove_empty(known: tuple[KnownFile, ...], directory: Path, *, made: bool) -> None:
    """Removes folders that were made for files that were not fetched."""
    folders = {parent for file in known for parent in Path(file.path).parents}
    for folder in sorted(folders - {Path()}, key=lambda path: -len(path.parts)):
        with suppress(OSError):  # folders that are not empty stay
            (directory / folder).rmdir()
    if made:
        with suppress(OSError):
            directory.rmdir()


class _WholeFile(BufferedWriter):
    """A file that refuses bytes beyond its size, and all once `stop` is set."""

    def __init__(self, path: str, *, size: int, stop: threading.Event) -> None:
        Path(path).unlink()  # pooch's own, which only its owner may read
        super().__init__(FileIO(path, "w"))
        self._size, self._stop = size, stop

    def write(self, chunk: "ReadableBuffer") -> int:
        if self._stop.is_set() or self.tell() + memoryview(chunk).nbytes > self._size:
            raise ValueError("no more is wanted")
        return super().write(chunk)


class _Mirror:
    """Fetches single files from a mirror to a folder, each whole or not at all. Threads may share it."""

    def __init__(self, address: str, known: Sequence[KnownFile], directory: Path) -> None:
        import pooch

        pooch.get_logger().setLevel("WARNING")  # else it logs every file
        self.stop = threading.Event()
        self._pooch = pooch.Pooch(
            directory,
            base_url=address,
            registry={file.path: f"sha256:{file.sha256}" for file in known},
            urls={file.path: f"{address.rstrip('/')}/{quote(file.path)}" for file in known},
        )
        self._request = pooch.HTTPDownloader(
            chunk_size=CHUNK,
            timeout=(PATIENCE, SILENCE),
            headers={"User-Agent": "fissura", "Accept-Encoding": "identity"},
            hooks={"response": check_redirect},
            proxies={"no_proxy": urlsplit(address).hostname} if is_loopback(address) else None,
        )

    def fetch(self, known: KnownFile) -> str | None:
        """None if the file was fetched, else the problem in one line; "" if the fetch was stopped."""
        from requests.exceptions import RequestException

        def download(url: str, path: str, pooch: "Pooch") -> None:
            with _WholeFile(path, size=known.size, stop=self.stop) as file:
                self._request(url, file, pooch)

        url, reason = self._pooch.get_url(known.path), ""
        try:
            (self._pooch.path / known.path).parent.mkdir(parents=True, exist_ok=True)
            for delay in (*DELAYS, 0):
                if self.stop.is_set():
                    return ""
                try:
                    self._pooch.fetch(known.path, downloader=download)
                    return None
                except RequestException as error:
                    reason = _reason(error)
                    self.stop.wait(delay)
        except ValueError:
            if self.stop.is_set():
                return ""
            wanted = f"{known.size} bytes of SHA-256 {known.sha256}"
            return f"{url}: what came is refused, it is not the {wanted}; {REMEDY}"
        except OSError as error:
            return f"{self._pooch.path / known.path}: cannot be written: {error.strerror or error}"
        return f"{url}: {reason} ({len(DELAYS) + 1} attempts); {REMEDY}"


def _reason(error: "RequestException") -> str:
    if error.response is None:
        return f"cannot be fetched: {error}"
    return f"the mirror answers {error.response.status_code} {error.response.reason}"
