"""Files that are whole or absent: written aside, then renamed."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fissura.core.errors import DataError
from fissura.core.text import nearest

_SCRATCH = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def near(path: Path) -> str:
    """`; did you mean ...?` where something beside `path`, which is not there, has a name like its own; or
    nothing."""
    try:
        beside = [entry.name for entry in path.absolute().parent.iterdir()]
    except (OSError, ValueError):
        return ""
    hint = nearest(path.name, beside, likeness=0.5)  # of the few that are there
    return hint.replace("mean `", f"mean `{path.parent}/") if path.parent != Path() else hint


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch path beside `path` that takes its place when the block ends well, and vanishes when it does
    not; an absolute one, since libraries read `a:b/c` as a URL."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def opened_regular(path: Path) -> Iterator[BufferedReader]:
    """A regular file, links followed, open for reading; a pipe would be waited for, and a device has no end.

    Raises:
        OSError: it cannot be read, or is none.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  of a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        yield file


def read_regular(path: Path, *, most: int) -> bytes:
    """The bytes of a regular file, links followed; of a longer one `most` and one more.

    Raises:
        OSError: it cannot be read, or is none.
    """
    with opened_regular(path) as file:
        # as much memory as is asked for is taken at once, also where none is left for `most`
        return file.read(min(most, os.fstat(file.fileno()).st_size) + 1)


def check_writable(folder: Path) -> None:
    """Looks whether files can be written in `folder`, which need not exist yet; nothing is made.

    Raises:
        DataError: they cannot.
    """
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    if not standing.is_dir():
        raise DataError(f"{folder}: results go into a folder, and {standing} is a file; name another folder")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise DataError(
            f"{folder}: results go into a folder, and {standing} is read-only; name another folder"
        )


def remove_abandoned(directory: Path) -> None:
    """Removes what killed writers left in `directory`; nobody may be writing there now."""
    for path in directory.glob(".*.tmp"):
        if _SCRATCH.fullmatch(path.name):
            path.unlink(missing_ok=True)


def remove_folder(folder: Path, *, within: float) -> bool:
    """Removes a folder that ending processes may still write to; gives whether it is gone after so many
    seconds."""
    deadline = time.monotonic() + within
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1 * folder.exists())
    return not folder.exists()


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, plain: Any) -> None:
    """Writes `plain` to `path` as JSON, whole or not at all."""
    write_text(path, json.dumps(plain, indent=2, sort_keys=True) + "\n")


def sqlite_uri(path: Path) -> str:
    """SQLite's own name of a file, with every character that means something in a URL written as `%XX`
    (https://www.sqlite.org/uri.html)."""
    return f"file:{quote(os.fsencode(path.absolute()))}"


def sha256(path: Path) -> str:
    """The SHA-256 of a regular file's bytes, 64 hex digits.

    Raises:
        OSError: it cannot be read, or is none.
    """
    with opened_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
