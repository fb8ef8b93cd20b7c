"""A service sees that its Ray has died, says what of it, and ends what is left; processes are named so."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fissura.core.errors import FissuraError
from fissura.core.signals import interrupted
from fissura.distributed.serving import watch as serve_watch
from fissura.distributed.serving.watch import RayWatch, ends_with_ray

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that calls itself so."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(title: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 300"])
        processes.append(process)
        while title not in Path(f"/proc/{process.pid}/cmdline").read_text().split("\0"):
            time.sleep(0.005)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("ray::DashboardAgent", "dashboard agent"),
        ("ray::RuntimeEnvAgent", "runtime environment agent"),
    ],
)
def test_an_agent_that_dies_is_told_of_and_what_is_left_is_ended(start: Start, title: str, said: str) -> None:
    agent, replica = start(title), start("ray::ServeReplica")
    watch = RayWatch(lambda line: None)
    assert watch.ended() is None
    agent.kill()
    agent.wait()
    assert watch.ended() == said
    watch.end_all()
    assert replica.wait(30) == -9


def test_a_process_that_is_not_yet_reaped_is_dead(start: Start) -> None:
    agent = start("ray::DashboardAgent")
    watch = RayWatch(lambda line: None)
    agent.kill()
    end = time.monotonic() + 30
    while watch.ended() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_controller_that_ray_starts_anew_is_told_of_once_and_one_that_stays_away_ends_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = start("ray::ServeController")
    watch = RayWatch(said.append)
    for _ in range(2):
        assert watch.ended() is None
    first.kill()
    first.wait()
    assert watch.ended() is None
    second = start("ray::ServeController")
    for _ in range(3):
        assert watch.ended() is None
    [line] = said
    assert "controller died" in line
    monkeypatch.setattr(serve_watch, "BACK_WITHIN_SECONDS", 0.0)
    second.kill()
    second.wait()
    watch.ended()
    assert "controller" in (watch.ended() or "")


@pytest.mark.parametrize("waits", ["asleep", "until it is interrupted"])
def test_what_waits_for_a_ray_that_dies_is_ended(start: Start, waits: str) -> None:
    agent, said = start("ray::DashboardAgent"), list[str]()

    def wait() -> None:
        threading.Timer(0.2, agent.kill).start()
        if waits == "asleep":  # as a call of Ray Serve's in a service that is starting
            time.sleep(30)
        else:
            with interrupted() as event:
                event.wait()

    begin = time.monotonic()
    with (
        pytest.raises(FissuraError, match="since Ray's dashboard agent died; start it again"),
        ends_with_ray(said.append),
    ):
        wait()
    assert time.monotonic() - begin < 10
    assert said == ["Ray's dashboard agent died: ending what is left"]


def test_what_ends_by_itself_or_fails_does_so_under_the_watch(start: Start) -> None:
    start("ray::DashboardAgent")
    with ends_with_ray(print):
        pass
    with pytest.raises(ValueError, match="its own"), ends_with_ray(print):
        raise ValueError("its own")
