"""Floods over HTTP against the HTTP process of a service: heads without an end, connections without a
request, and bodies that do not come. Health is answered all the while, and so are images."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from serve_process import PHOTO
from serving_door import answer, client, head, sent, until

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(900)]

HEALTH, IDLE_SECONDS, HALF_OPEN = head("GET", "/healthz"), 10, 4200
JSON = "Content-Type: application/json"


class Process(NamedTuple):
    """A service without a model, and its process."""

    pid: int
    port: int

    @property
    def megabytes(self) -> int:
        """That it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    @property
    def files(self) -> int:
        """That it has open, its connections among them."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def segmented(self) -> int:
        """The status of one image."""
        return sent(self.port, head("POST", "/v1/segment", f"Content-Length: {len(PHOTO)}"), PHOTO).status


@pytest.fixture(scope="module")
def service() -> Iterator[Process]:
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", "import serving_door; serving_door.serve_alone()"],
        stdout=subprocess.PIPE, text=True, env=settings,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            running = Process(process.pid, int(process.stdout.readline()))
            until(lambda: running.segmented() == 200)
            yield running
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def health_is_answered(service: Process) -> Iterator[list[float]]:
    """Inside the block /healthz is asked again and again; it is answered within a second each time."""
    seconds, ended = list[float](), list[bool]()

    def ask() -> None:
        while not ended:
            begin = time.monotonic()
            assert sent(service.port, HEALTH).status == 200
            seconds.append(time.monotonic() - begin)
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield seconds
        finally:
            ended.append(True)
        asking.result()
    assert max(seconds) < 1


def told(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")  # with pytest -s, for docs/security.md


def test_150_megabytes_of_header_fields_are_refused_at_their_beginning(service: Process) -> None:
    before = service.megabytes
    fields = (b"x: " + b"a" * 60 + b"\r\n") * 1024

    def flood() -> int:
        with client(service.port) as connection:
            size = connection.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            with suppress(OSError):
                while size < 150 * 10**6:
                    size += connection.send(fields)
            return answer(connection).status

    with health_is_answered(service) as seconds, ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            floods = [pool.submit(flood) for _ in range(2)]
            # 0: it was closed before it had read the answer
            assert {each.result() for each in floods} <= {431, 0}
    grown = service.megabytes - before
    told(f"20 floods of 150 MB: {grown} MB more, /healthz {max(seconds):.2f} s at most")
    assert grown < 50
    assert service.segmented() == 200


HALF_A_HEAD = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nx: "


@pytest.mark.parametrize(
    ("kind", "data", "addresses"),
    [
        ("silent", b"", 1),
        ("half a head", HALF_A_HEAD, 1),
        ("half a head, of 40 addresses", HALF_A_HEAD, 40),
        ("half an image", head("POST", "/v1/segment", "Content-Length: 268435456") + b"x", 1),
        ("half a document", head("PUT", "/v1/models/a", JSON, "Content-Length: 999") + b"{", 1),
    ],
)
def test_thousands_of_connections_that_stand_still_keep_nobody_out(
    service: Process, kind: str, data: bytes, addresses: int
) -> None:
    before, clients = service.megabytes, (f"127.0.0.{2 + number % addresses}" for number in count())
    with ExitStack() as crowd:

        def join() -> None:
            connection = crowd.enter_context(socket.socket())
            connection.bind((next(clients), 0))
            connection.connect(("127.0.0.1", service.port))
            with suppress(ConnectionError):
                connection.sendall(data)

        for _ in range(HALF_OPEN):
            join()
        until(lambda: service.segmented() == 200)  # behind them in the queue: the burst has been taken in
        with health_is_answered(service) as seconds:
            statuses = list[int]()
            for _ in range(20):
                statuses.append(service.segmented())
                for _ in range(20):
                    join()
            begin = time.monotonic()
            until(lambda: service.files < 200, seconds=4 * IDLE_SECONDS)
            closed = time.monotonic() - begin
    told(
        f"{HALF_OPEN} connections ({kind}): images {statuses.count(200)} of 20, closed {closed:.0f} s later,"
        f" {service.megabytes - before} MB more, /healthz {max(seconds):.2f} s at most"
    )
    assert set(statuses) == {200}
    assert service.segmented() == 200


def test_bodies_that_do_not_come_end_after_the_idle_time_and_turn_nobody_away(service: Process) -> None:
    claims = [head("POST", "/v1/segment", "Content-Length: 268435456")] * 4
    claims += [head("POST", "/v1/segment", "Transfer-Encoding: chunked") + b"1\r\nx\r\n"] * 4
    claims += [head("PUT", "/v1/models/a", JSON, "Content-Length: 999") + b"{"] * 50
    with ExitStack() as crowd, health_is_answered(service) as seconds:
        begin = time.monotonic()
        connections = [crowd.enter_context(client(service.port)) for _ in claims]
        for connection, data in zip(connections, claims, strict=True):
            connection.sendall(data)
        statuses = [service.segmented() for _ in range(10)]
        assert set(statuses) == {200}
        refusals = {(refused.status, refused.kind) for refused in map(answer, connections)}
        ended = time.monotonic() - begin
    slowest = f"/healthz {max(seconds):.2f} s at most"
    told(f"{len(claims)} bodies that do not come: {refusals} after {ended:.1f} s, {slowest}")
    assert refusals == {(408, "stood-still")}
    assert IDLE_SECONDS - 1 < ended < IDLE_SECONDS + 5
