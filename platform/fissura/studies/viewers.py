"""A study in the browser: TensorBoard on its curves, optuna-dashboard on its trials, as child processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO
from urllib.request import urlopen

from fissura.core.errors import FissuraError, ResourceError
from fissura.core.signals import interrupted
from fissura.studies.study import Study

HOST = "127.0.0.1"
ANSWERS_WITHIN_SECONDS = 120.0
ENDS_WITHIN_SECONDS = 10.0
LOOK_EVERY_SECONDS = 0.2


def show(study: Study, *, ports: Mapping[str, int | None], ready: Callable[[dict[str, str]], None]) -> None:
    """Shows a study until Ctrl-C or SIGTERM, and leaves no process.

    `ports` of "tensorboard" and "optuna" may be None: one that is free. `ready` is told their addresses when
    both answer.

    Raises:
        ResourceError: a port is taken; nothing was started.
        FissuraError: one of them ended by itself.
    """
    chosen = _free(ports)
    commands = {
        "tensorboard": [
            "tensorboard.main", "--logdir", str(study.runs), "--host", HOST,
            "--port", str(chosen["tensorboard"]), "--reload_interval", "5",
        ],
        "optuna": [
            "optuna_dashboard._cli", study.url, "--host", HOST, "--port", str(chosen["optuna"]),
            "--server", "wsgiref", "--quiet",
        ],
    }  # fmt: skip
    with interrupted() as stop, ExitStack() as stack:
        viewers = [
            stack.enter_context(_started(name, command, port=chosen[name]))
            for name, command in commands.items()
        ]
        for viewer in viewers:
            viewer.wait_until_it_answers(stop)
        if not stop.is_set():
            ready({viewer.name: viewer.url for viewer in viewers})
        while not stop.wait(LOOK_EVERY_SECONDS):
            for viewer in viewers:
                viewer.check()


@dataclass(frozen=True)
class _Viewer:
    name: str
    url: str
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    def wait_until_it_answers(self, stop: threading.Event) -> None:
        end = time.monotonic() + ANSWERS_WITHIN_SECONDS
        while not stop.wait(LOOK_EVERY_SECONDS):
            self.check()
            with contextlib.suppress(OSError, HTTPException), urlopen(self.url, timeout=5):  # noqa: S310
                return
            if time.monotonic() > end:
                raise FissuraError(f"{self.name}: {self.url} does not answer; {self._last_words()}")

    def check(self) -> None:
        if (code := self.process.poll()) is not None:
            raise FissuraError(f"{self.name} ended by itself with exit code {code}; {self._last_words()}")

    def _last_words(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it said nothing")


@contextmanager
def _started(name: str, command: list[str], *, port: int) -> Iterator[_Viewer]:
    """A child in a session of its own, so that Ctrl-C reaches it through this process alone, and whatever it
    started ends with it."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603
            # -P: what lies in the working directory is not imported
            [sys.executable, "-P", "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield _Viewer(name, f"http://{HOST}:{port}/", process, output)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_SECONDS)


def _free(ports: Mapping[str, int | None]) -> dict[str, int]:
    """A port for each: the given one, or one that is free."""
    free_ports, problems = dict[str, int](), list[str]()
    with ExitStack() as sockets:
        for name, port in ports.items():
            try:
                probe = sockets.enter_context(socket.create_server((HOST, port or 0)))
            except OSError as error:
                problems.append(
                    f"--{name}-port {port}: cannot be listened on ({os.strerror(error.errno or 0)});"
                    " name another, or none"
                )
            else:
                free_ports[name] = probe.getsockname()[1]
    if problems:
        raise ResourceError(*problems)
    return free_ports
