"""What another user of the machine does to folders and processes of others: all that he can try.

Run by root as a program: it becomes a user without any rights, reads `{"folders": [...], "pids": [...]}` from
its input, and prints as JSON what was tried (how often, by kind) and what was granted.
"""

import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

NOBODY = 65534


def below(folders: list[str]) -> list[Path]:
    """The folders and all that is in them, as root sees it."""
    return [path for folder in folders for path in (Path(folder), *Path(folder).rglob("*"))]


def on_path(path: Path, kind: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What can be tried on a path that leaves it where it is."""
    if kind == "folder":
        yield "list", lambda: list(path.iterdir())
        yield "write into", lambda: (path / "planted").touch()
    elif kind == "socket":
        yield "connect to", lambda: socket.socket(socket.AF_UNIX).connect(os.fspath(path))
    else:
        yield "read", partial(first_byte, path)
        yield "write", lambda: path.open("r+b").write(b"")


def first_byte(path: Path) -> bytes:
    """What a file begins with."""
    return path.open("rb").read(1)


def on_process(pid: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What can be tried on a process: its environment holds the token, its files the object store."""
    folder = Path(f"/proc/{pid}")
    for name in ("environ", "maps", "mem"):
        yield name, partial(first_byte, folder / name)
    yield "fd", lambda: list((folder / "fd").iterdir())
    yield "map_files", lambda: list((folder / "map_files").iterdir())
    yield "root", lambda: list((folder / "root").iterdir())
    yield "signal", lambda: os.kill(pid, 0)


def main() -> None:
    asked = json.load(sys.stdin)
    found = [
        (path, "folder" if path.is_dir() else "socket" if path.is_socket() else "file")
        for path in below(asked["folders"])
        if not path.is_symlink()
    ]
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    trials = [(kind, f"{what} {path}", act) for path, kind in found for what, act in on_path(path, kind)]
    trials += [("process", f"{what} of {pid}", act) for pid in asked["pids"] for what, act in on_process(pid)]
    for path in Path("/dev/shm").iterdir():  # noqa: S108  the device itself
        trials.append(("shared memory", f"read {path}", partial(first_byte, path)))
    for path, kind in sorted(found, reverse=True):  # what lies in a folder before the folder
        trials.append((kind, f"rename {path}", partial(path.rename, f"{path}.taken")))
    tried, granted = Counter[str](), []
    for kind, name, act in trials:
        tried[kind] += 1
        try:
            act()
        except (OSError, ValueError):
            continue
        granted.append(name)
    json.dump({"tried": tried, "granted": granted}, sys.stdout)


if __name__ == "__main__":
    main()
