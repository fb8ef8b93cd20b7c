"""A cluster's head is lost, and started again on the same port."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ray.util import get_node_ip_address

from fissura.distributed.cluster import connected
from fissura.distributed.environment import private_folder
from fissura.operations.drill.finding import FaultCost
from fissura.operations.drill.owned_processes import environment_of
from fissura.operations.drill.sandbox import Ground, Stuck, free_resources, seconds_until_free
from fissura.operations.drill.scenario import Stopwatch, wait_for_middle
from fissura.operations.drill.work import DrillWork

CPUS = 2
STARTS = 3


class HeadRestarted:
    """Kills all processes of the head of the drill's own cluster; the driver ends by itself. Then restarts
    the head and resumes the work from disk."""

    name = "head"

    def run(self, ground: Ground, work: DrillWork) -> FaultCost:
        """Injects the fault and returns its cost; leaves the ground's cluster alone."""
        with private_folder() as folder:
            return self._on(Head(folder), ground, work)

    def _on(self, head: "Head", ground: Ground, work: DrillWork) -> FaultCost:
        try:
            head.start()
            ground = replace(ground, address=head.address)
            with connected(head.address):
                expected = free_resources()
            with ground.started(work.begin(ground.folder)) as driver:
                wait_for_middle(ground, work, driver)
                head.kill()
                watch = Stopwatch(ground, work)
                driver.wait_for_end()
            head.start()
            with ground.started(work.again(ground.folder)) as driver:
                seconds = watch.gone_on(driver)
                driver.finish()
            with connected(head.address):
                resources_seconds = seconds_until_free(expected)
        finally:
            head.kill()
        return watch.finding(self.name, seconds=seconds, resources_seconds=resources_seconds)


class Head:
    """The drill's own Ray head on this machine, with sockets and logs in `folder`; a mark in their
    environment identifies its processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("", 0))
            self._port = int(free.getsockname()[1])
        self.address = f"{get_node_ip_address()}:{self._port}"
        self._mark = f"FISSURA_DRILL_HEAD={secrets.token_hex(8)}"

    def start(self) -> None:
        """Starts the head, without any earlier state.

        Raises:
            Stuck: it did not come up.
        """
        name, _, token = self._mark.partition("=")
        words = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={self._port}",
            f"--num-cpus={CPUS}", "--include-dashboard=false", f"--temp-dir={self._folder}",
            "--disable-usage-stats",
        ]  # fmt: skip
        for _ in range(STARTS):
            started = subprocess.run(  # noqa: S603  every word is ours
                words, capture_output=True, text=True, check=False, env=os.environ | {name: token}
            )
            if not started.returncode:
                return
            # Ray gives a busy machine half a minute
            self.kill()
        raise Stuck(f"the head did not start: {started.stdout[-500:]} {started.stderr[-500:]}")

    def kill(self) -> None:
        """Ends all of its processes with SIGKILL, like a power cut."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and self._mark in environment_of(folder):
                with suppress(ProcessLookupError):
                    os.kill(int(folder.name), signal.SIGKILL)
