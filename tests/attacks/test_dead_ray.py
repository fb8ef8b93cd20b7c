"""A process of Ray of a service is killed: it goes on, or ends so that a supervisor starts another."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve_process import (
    FISSURA,
    PHOTO,
    Running,
    alive,
    asked,
    descendants,
    free_port,
    serving,
)  # fmt: skip

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(600)]

SUPERVISOR = """
while :; do
  {command}
  code=$?
  echo "ended with $code" >> {log}
  if [ $code -eq 0 ] || [ $code -eq 2 ]; then exit $code; fi
  sleep 1
done
"""


@pytest.fixture(scope="module")
def run(write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmenter(tmp_path_factory.mktemp("runs") / "aaaaaaaaaaaaaaaa")


@pytest.fixture
def service(run: Path, tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, f"cracks={run}") as running:
        warm(running.url)
        yield running


def warm(url: str) -> None:
    end = time.monotonic() + 240
    while asked(url, "POST", "/v1/segment", PHOTO).status != 200:
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("raylet/raylet", "raylet"),
        ("gcs/gcs_server", "control store"),
        ("ray::DashboardAgent", "dashboard agent"),
        ("ray::RuntimeEnvAgent", "runtime environment agent"),
    ],
)
def test_a_process_of_ray_that_dies_ends_the_service_within_ten_seconds_with_a_word_and_code_1(
    service: Running, tell: Callable[[str], None], title: str, said: str
) -> None:
    below = descendants(service.process.pid)
    service.seen |= below.keys()
    victims = [pid for pid, line in below.items() if title in line.partition(" --")[0]]
    begin = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    while "died" not in service.said.read_text():
        assert time.monotonic() < begin + 10
        time.sleep(0.1)
    noticed = time.monotonic() - begin
    assert service.process.wait(30) == 1
    tell(f"{title} killed: said after {noticed:.1f} s, ended after {time.monotonic() - begin:.1f} s")
    last = service.said.read_text().splitlines()[-1]
    assert last.startswith("failed: the service has ended, since Ray's")
    assert said in last
    assert service.left() == []


def test_a_controller_that_dies_is_started_anew_and_no_connection_is_refused(
    service: Running, tell: Callable[[str], None]
) -> None:
    over, statuses = threading.Event(), list[tuple[int, float]]()

    def go_on() -> None:
        while not over.is_set():
            reply = asked(service.url, "POST", "/v1/segment", PHOTO)
            statuses.append((reply.status, reply.seconds))

    asking = threading.Thread(target=go_on)
    asking.start()
    before = {name: service.named(name) for name in ("ServeReplica:fissura:", "ServeReplica:fissura-model")}
    os.kill(service.named("ray::ServeController"), signal.SIGKILL)
    time.sleep(20)
    over.set()
    asking.join()
    slowest = max(seconds for _, seconds in statuses)
    tell(f"Ray Serve's controller killed: {len(statuses)} requests, all 200, the slowest {slowest:.1f} s")
    assert {status for status, _ in statuses} == {200}
    assert {name: service.named(name) for name in before} == before
    assert service.process.poll() is None
    assert "controller died" in service.said.read_text()


def test_a_supervisor_has_it_answer_again(run: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [FISSURA, "serve", f"cracks={run}", "--port", str(port)]
    script = SUPERVISOR.format(command=shlex.join(command), log=shlex.quote(str(log)))
    url = f"http://127.0.0.1:{port}"
    said = tmp_path / "said"
    with said.open("w") as output:
        supervisor = subprocess.Popen(["bash", "-c", script], stdout=output, stderr=output, cwd=tmp_path)

    def serves(times: int, *, seconds: float) -> None:
        """Waits until the command has said so this many times; it answers images a moment before it does."""
        end = time.monotonic() + seconds
        while said.read_text().count("serving at") < times:
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.2)

    seen: set[int] = set()
    try:
        warm(url)
        serves(1, seconds=60)
        below = descendants(supervisor.pid)
        seen |= below.keys()
        [raylet] = [pid for pid, line in below.items() if "raylet/raylet " in line]
        begin = time.monotonic()
        os.kill(raylet, signal.SIGKILL)
        while not log.exists():
            assert time.monotonic() < begin + 60
            time.sleep(0.2)
        warm(url)
        tell(f"raylet killed under a supervisor: answers again after {time.monotonic() - begin:.1f} s")
        serves(2, seconds=60)
        assert log.read_text() == "ended with 1\n"
        below = descendants(supervisor.pid)
        seen |= below.keys()
        [driver] = [pid for pid, line in below.items() if shlex.join(command[1:4]) in line]
        os.kill(driver, signal.SIGTERM)
        assert supervisor.wait(90) == 0
    finally:
        supervisor.kill()
        supervisor.wait()
        for pid in seen:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
    assert sys.platform == "linux"
