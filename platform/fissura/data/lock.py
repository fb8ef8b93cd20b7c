"""One process of a machine at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fissura.core.errors import UserError


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
    """Holds `directory` as `locked` does, but raises `refusal` where another caller holds it already.

    Folders that were made for it and are empty at the end are removed.
    """
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
    finally:
        os.close(descriptor)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
