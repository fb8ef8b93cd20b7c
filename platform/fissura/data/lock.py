"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fissura.core.errors import UserError

LOCK = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits until no other caller holds `directory` (made where it is absent), and holds it for the block.

    The kernel lets go when the holder ends, however it ends; no lock file is left behind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claimed(directory: Path, *, refusal: UserError) -> Iterator[None]:
    """Holds `directory` for the block, but raises `refusal` where another caller holds it already, on this
    machine or, on storage that several share, on another.

    The kernel lets go when the holder ends, however it ends. What is locked is a hidden file in the folder,
    since a network file system keeps the lock of a folder to each machine. Folders that were made for it and
    are empty at the end are removed.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    descriptor = _held(directory, refusal)
    try:
        yield
    finally:
        (directory / LOCK).unlink(missing_ok=True)
        os.close(descriptor)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def _held(directory: Path, refusal: UserError) -> int:
    """The descriptor of the folder's locked file; whoever held it before may have removed it meanwhile."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == (directory / LOCK).stat().st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise refusal from None
        except FileNotFoundError:
            pass
        os.close(descriptor)
