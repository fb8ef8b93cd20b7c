"""Locks a folder for one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fissura.core.errors import UserError

LOCK = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits for the lock of `directory` (created if missing), and holds it for the block.

    The kernel releases it when the process ends, however it ends; no lock file remains.
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
    """Holds the lock of `directory` for the block; raises `refusal` if another caller holds it, on this
    machine or, on shared storage, on another.

    The kernel releases it when the process ends, however it ends. It locks a hidden file in the folder:
    network file systems do not share a folder's lock between machines. Removes folders that it created and
    that are empty at the end.
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
    """The descriptor of the folder's locked file, which its previous holder may remove meanwhile."""
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
