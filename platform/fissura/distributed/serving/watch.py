"""Watches the local Ray of a service: nothing else tells the driver that Ray died.

A local Ray is a control store and a raylet that the driver started, and below the raylet two agents and the
workers. Without the control store, the raylet or an agent, no dead process is replaced; so the service ends,
and its supervisor restarts it. Ray itself restarts Ray Serve's controller.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ray._private import ray_constants, worker

from fissura.core.errors import FissuraError
from fissura.core.progress import Say
from fissura.distributed.periodic import every
from fissura.distributed.processes import command_line

LOOK_EVERY_SECONDS = 1.0
BACK_WITHIN_SECONDS = 60.0
STARTED = {
    ray_constants.PROCESS_TYPE_GCS_SERVER: "control store (gcs_server)",
    ray_constants.PROCESS_TYPE_RAYLET: "raylet",
}
AGENTS = {"ray::DashboardAgent": "dashboard agent", "ray::RuntimeEnvAgent": "runtime environment agent"}
CONTROLLER = "ray::ServeController"


class Descendant(NamedTuple):
    """A process: its id, and its start time in ticks, since ids are reused."""

    pid: int
    began: str


class RayWatch:
    """Watches the processes of the Ray that this process started; those below the raylet on Linux only."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._needed: dict[str, Descendant] = {}
        self._seen: set[Descendant] = set()
        self._controller: Descendant | None = None
        self._without_since: float | None = None
        self._look()

    def ended(self) -> str | None:
        """The dead processes that the service needs; None if there are none."""
        node = worker._global_node
        dead = [STARTED[kind] for kind, _ in node.dead_processes() if kind in STARTED] if node else []
        dead += [name for name, process in self._needed.items() if _began(process.pid) != process.began]
        if dead:
            return " and ".join(dict.fromkeys(dead))
        self._look()
        if self._without_since and time.monotonic() - self._without_since > BACK_WITHIN_SECONDS:
            return f"Ray Serve's controller, and came not back within {BACK_WITHIN_SECONDS:g} s,"
        return None

    def end_all(self) -> None:
        """Ends the remaining processes, so that the port is free for the next service."""
        for process in self._seen:
            if _began(process.pid) == process.began:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def _look(self) -> None:
        below = _descendants(os.getpid())
        self._seen |= below.keys()
        for process, title in below.items():
            if (name := AGENTS.get(title.partition(" ")[0])) and name not in self._needed:
                self._needed[name] = process
        controllers = [process for process, title in below.items() if title.startswith(CONTROLLER)]
        if controllers and self._controller not in controllers:
            if self._controller:
                self._say("Ray Serve's controller died: Ray has started another, what is served goes on")
            self._controller = controllers[0]
        lost = self._controller is not None and not controllers
        self._without_since = (self._without_since or time.monotonic()) if lost else None


@contextmanager
def ends_with_ray(say: Say) -> Iterator[None]:
    """A block that ends when the Ray of this process dies, wherever the main thread, which runs it, waits.

    Reports the dead process within seconds, and ends the remaining ones.

    Raises:
        FissuraError: Ray has died.
    """
    watch, died = RayWatch(say), list[str]()

    def look() -> None:
        if not died and (dead := watch.ended()):
            died.append(dead)
            say(f"Ray's {dead} died: ending what is left")
            watch.end_all()
            # a call that waits for a dead process returns only on a signal
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    try:
        with every(LOOK_EVERY_SECONDS, look):
            yield
    except (Exception, KeyboardInterrupt):
        if not died:
            raise
    if died:
        raise FissuraError(
            f"the service has ended, since Ray's {died[0]} died; start it again, or let a supervisor do so"
            " (docs/serving.md)"
        )


def _descendants(ancestor: int) -> dict[Descendant, str]:
    """The descendants of a process, and their titles."""
    parents: dict[int, int] = {}
    with suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _fields(int(entry.name))):
                parents[int(entry.name)] = int(fields[1])
    descendants: dict[Descendant, str] = {}
    todo = [ancestor]
    while todo:
        parent_pid = todo.pop()
        for pid in [pid for pid, parent in parents.items() if parent == parent_pid]:
            todo.append(pid)
            descendants[Descendant(pid, _began(pid))] = command_line(pid)
    return descendants


def _began(pid: int) -> str:
    """The start time of a process; empty if it has ended."""
    fields = _fields(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
