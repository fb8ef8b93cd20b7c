"""A node's test of the shared storage: small files, and two locks."""

import contextlib
import fcntl
import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = 5
BYTES = 4096
# a client of a network file system can miss another's files for as long as names are cached
VISIBLE_SECONDS = 6.0
HELD, RELEASE, LOCKED, DATABASE = "held", "release", "locked", "turns.db"
FILE, SQLITE = "a file", "SQLite"


def write_token(folder: str, node: str, token: str) -> tuple[float, str]:
    """Writes a node's file into the scratch folder of the storage; returns the median seconds of a synced
    write of 4 KiB, and the error, or an empty text."""
    scratch, times = Path(folder), []
    try:
        scratch.mkdir(exist_ok=True)
        for number in range(WRITES):
            begin = time.perf_counter()
            with (scratch / f"{node}.{number}").open("wb") as file:
                file.write(os.urandom(BYTES))
                file.flush()
                os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
        (scratch / f"{node}.token").write_text(token, encoding="ascii")
    except OSError as error:
        return 0.0, error.strerror or str(error)
    return statistics.median(times), ""


def read_tokens(folder: str, nodes: list[str], token: str) -> list[str]:
    """The nodes whose files this node sees there; waits a little for missing ones."""
    missing = set(nodes)

    def all_here() -> bool:
        for node in sorted(missing):
            with contextlib.suppress(OSError):
                if (Path(folder) / f"{node}.token").read_text(encoding="ascii") == token:
                    missing.discard(node)
        return not missing

    _wait(all_here)
    return [node for node in nodes if node not in missing]


def hold_locks(folder: str) -> dict[str, str]:
    """Holds both locks of a search, its folder's and its database's, until another process has tried them;
    returns why a lock could not be taken."""
    scratch, problems = Path(folder), {}
    with contextlib.ExitStack() as locks:
        try:
            locks.enter_context(_file_locked(scratch / LOCKED))
        except OSError as error:
            problems[FILE] = error.strerror or str(error)
        try:
            database = locks.enter_context(
                contextlib.closing(sqlite3.connect(scratch / DATABASE, timeout=0.1))
            )
            database.execute("begin exclusive")
            database.execute("create table turns (node text)")
        except sqlite3.Error as error:
            problems[SQLITE] = str(error)
        (scratch / HELD).touch()
        _wait((scratch / RELEASE).exists)
    return problems


def try_locks(folder: str) -> dict[str, str]:
    """Tries the same locks while another process holds them: `refused` is right, `granted` is a fault."""
    scratch = Path(folder)
    if not _wait((scratch / HELD).exists):
        return {SQLITE: "the process that was to hold the lock did not come"}
    outcomes = {}
    try:
        with _file_locked(scratch / LOCKED):
            outcomes[FILE] = "granted"
    except BlockingIOError:
        outcomes[FILE] = "refused"
    except OSError as error:
        outcomes[FILE] = error.strerror or str(error)
    with contextlib.closing(sqlite3.connect(scratch / DATABASE, timeout=0.1)) as database:
        try:
            database.execute("begin exclusive")
            outcomes[SQLITE] = "granted"
        except sqlite3.Error as error:
            outcomes[SQLITE] = "refused" if "locked" in str(error) else str(error)
    (scratch / RELEASE).touch()
    return outcomes


@contextmanager
def _file_locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _wait(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def read_data(plain: dict[str, Any], cache: str) -> tuple[str, str]:
    """The digest of the data set `plain` as this node reads it, and the error, or an empty text."""
    from pydantic import TypeAdapter

    from fissura.core.errors import UserError
    from fissura.data.sources import AnySource, digest_sources

    try:
        source = TypeAdapter[AnySource](AnySource).validate_python(plain)
        return digest_sources([source], directory=Path(cache)), ""
    except UserError as error:
        return "", error.problems[0]
    except OSError as error:
        return "", f"{error.filename}: {error.strerror or error}"
