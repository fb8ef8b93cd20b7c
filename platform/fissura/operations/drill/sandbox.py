"""The sandbox of a drill: a cluster, and a folder that its nodes share."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from fissura.core.errors import FissuraError
from fissura.operations.drill.owned_processes import Marked

TIMEOUT_SECONDS = 300.0
LOOK_EVERY_SECONDS = 0.1
LAST_LINES = 4
COUNTED = ("CPU", "GPU")
# what the program `fissura` runs: it may not be on the path of this Python
PROGRAM = (sys.executable, "-c", "from fissura.cli import main; main()")


class Stuck(FissuraError):
    """An expected event did not come in time, or the driver ended before it."""


class Driver:
    """A `fissura` process; its output goes to a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self._log = process, log

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self._process.kill()
        self._process.wait()

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Waits until `until`.

        Raises:
            Stuck: the driver ended before, or it took too long.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not until():
            if self._process.poll() is not None and not until():
                raise Stuck(
                    f"the driver ended with {self._process.returncode} before {what}: {self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise Stuck(f"waited {TIMEOUT_SECONDS:.0f} s in vain for {what}: {self._last_words()}")
            time.sleep(LOOK_EVERY_SECONDS)

    def wait_for_end(self) -> None:
        """Waits until it has ended, with or without an error.

        Raises:
            Stuck: it took too long.
        """
        self.wait(lambda: self._process.poll() is not None, "its end")

    def finish(self) -> None:
        """Waits until it has ended without an error.

        Raises:
            Stuck: it failed, or took too long.
        """
        self.wait_for_end()
        if self._process.returncode:
            raise Stuck(f"the driver ended with {self._process.returncode}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", errors="replace").split("\n")
        return " / ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:]) or "it said nothing"


@dataclass(frozen=True)
class Ground:
    """A folder of one scenario, and the cluster at `address`."""

    folder: Path
    address: str
    marked: Marked

    @contextmanager
    def started(self, words: Sequence[str]) -> Iterator[Driver]:
        """Runs the command; the end of the block kills it."""
        log = self.folder / "driver.log"
        environment = os.environ | self.marked.environment | {"RAY_ADDRESS": self.address}
        with (
            log.open("ab") as file,
            subprocess.Popen(  # noqa: S603  the words are the drill's own
                [*PROGRAM, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield Driver(process, log)
            finally:
                process.kill()


def free_resources() -> dict[str, float]:
    """The free CPUs and GPUs of the cluster."""
    available = ray.available_resources()
    return {name: float(available.get(name, 0.0)) for name in COUNTED}


def seconds_until_free(expected: dict[str, float]) -> float:
    """Waits until the cluster has `expected` free; returns the seconds that it took.

    Raises:
        Stuck: it took too long.
    """
    begin = time.monotonic()
    while (free := free_resources()) != expected:
        if time.monotonic() - begin > TIMEOUT_SECONDS:
            raise Stuck(
                f"{TIMEOUT_SECONDS:.0f} s after the work {free} are free, {expected} were before; where"
                " nothing else began on the cluster meanwhile, its resources did not come back"
            )
        time.sleep(LOOK_EVERY_SECONDS)
    return time.monotonic() - begin
