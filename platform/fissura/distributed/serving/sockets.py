"""Connects the HTTP process directly to the replicas of its machine, since a call by Ray Serve costs more.

A handle's call passes four threads and three queues in each of the two processes: some 8 ms of CPU an image.
A replica that listens in the folder of the lines is reached over a Unix socket instead; Ray Serve starts,
watches and replaces it all the same. Only a fixed number of replicas may be reached so: what Ray Serve does
not see under way it does not scale by.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from fissura.serving.socket_rpc import SocketClient


def line_path(folder: Path, application: str) -> Path:
    """Where this process, a replica of `application`, listens; short, as a socket's path must be."""
    return folder / f"{_digest(application)}-{os.getpid()}"


class Lines:
    """The open lines to replicas that listen in `folder`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open: dict[Path, SocketClient] = {}

    def free(self, application: str) -> SocketClient | None:
        """The line of the application's replica that has the fewest images in work; None where there is no
        line."""
        prefix = _digest(application)
        usable = [
            line for path, line in self._open.items() if path.name.startswith(prefix) and not line.broken
        ]
        return min(usable, key=lambda line: line.waiting, default=None)

    async def look(self) -> None:
        """Opens lines to new replicas, and drops those of ended ones."""
        if self._folder is None:
            return
        for path in [path for path, line in self._open.items() if line.broken]:
            del self._open[path]
            path.unlink(missing_ok=True)
        for path in set(self._folder.iterdir()) - self._open.keys():
            # a killed replica leaves its socket behind
            with contextlib.suppress(OSError):
                self._open[path] = await SocketClient.open(path)


def _digest(application: str) -> str:
    return hashlib.blake2s(application.encode(), digest_size=6).hexdigest()
