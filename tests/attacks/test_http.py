"""Floods over HTTP against a service that really runs: heads without an end, connections without a request,
and bodies that do not come. Health is answered all the while, and images as soon as it is over."""

import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from serve_process import PHOTO, Running, asked, serving
from serving_door import answer, client, head, sent, until

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(900)]

HEALTH, IDLE_SECONDS, HALF_OPEN = head("GET", "/healthz"), 10, 4200
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def service(
    write_segmenter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    run = write_segmenter(tmp_path_factory.mktemp("runs") / "aaaaaaaaaaaaaaaa")
    with serving(tmp_path_factory.mktemp("service"), f"cracks={run}", token=None) as running:
        until(lambda: segmented(running) == 200, seconds=120)
        yield running


@pytest.fixture(autouse=True)
def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def port_of(service: Running) -> int:
    return int(service.url.rpartition(":")[2])


def segmented(service: Running) -> int:
    """The status of one image."""
    return asked(service.url, "POST", "/v1/segment", PHOTO, headers={}).status


def megabytes(service: Running) -> int:
    """What the HTTP process holds."""
    status = Path(f"/proc/{service.named('ServeReplica:fissura:http')}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


@contextmanager
def health_is_answered(service: Running) -> Iterator[list[float]]:
    """Inside the block /healthz is asked again and again; it is answered within a second each time."""
    seconds, ended = list[float](), list[bool]()

    def ask() -> None:
        while not ended:
            begin = time.monotonic()
            assert sent(port_of(service), HEALTH).status == 200
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


def test_150_megabytes_of_header_fields_are_refused_at_their_beginning(service: Running) -> None:
    before = megabytes(service)
    fields, most = (b"x: " + b"a" * 60 + b"\r\n") * 1024, 0

    def flood() -> tuple[int, int]:
        with client(port_of(service)) as connection:
            size = connection.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            with suppress(OSError):
                while size < 150 * 10**6:
                    size += connection.send(fields)
            return answer(connection).status, size

    with health_is_answered(service) as seconds, ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            floods = [pool.submit(flood) for _ in range(2)]
            results = [each.result() for each in floods]
            assert {status for status, _ in results} <= {431, 0}  # 0: it ended before the answer was read
            most = max(most, *(size for _, size in results))
    grown = megabytes(service) - before
    slowest = f"/healthz {max(seconds):.2f} s at most"
    told(f"20 floods: at most {most / 1e6:.1f} MB taken, {grown} MB more, {slowest}")
    assert most < 150 * 10**6
    assert grown < 50
    assert segmented(service) == 200


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("silent", b""),
        ("half a head", b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nx: "),
        ("half an image", head("POST", "/v1/segment", "Content-Length: 268435456") + b"x"),
        ("half a document", head("PUT", "/v1/models/a", JSON, "Content-Length: 999") + b"{"),
    ],
)
def test_thousands_of_connections_that_stand_still_keep_nobody_out(
    service: Running, kind: str, data: bytes
) -> None:
    before = megabytes(service)
    with ExitStack() as crowd, health_is_answered(service) as seconds:
        for _ in range(HALF_OPEN):
            connection = crowd.enter_context(socket.socket())
            connection.connect(("127.0.0.1", port_of(service)))
            with suppress(ConnectionError):
                connection.sendall(data)
        statuses = [segmented(service) for _ in range(20)]
        begin = time.monotonic()
        until(lambda: len(open_files(service)) < 200, seconds=4 * IDLE_SECONDS)
        closed = time.monotonic() - begin
    told(
        f"{HALF_OPEN} connections ({kind}): images {statuses.count(200)} of 20, closed {closed:.0f} s later,"
        f" {megabytes(service) - before} MB more, /healthz {max(seconds):.2f} s at most"
    )
    assert set(statuses) == {200}
    assert segmented(service) == 200


def open_files(service: Running) -> list[Path]:
    return list(Path(f"/proc/{service.named('ServeReplica:fissura:http')}/fd").iterdir())


def test_bodies_that_do_not_come_end_after_the_idle_time_and_turn_nobody_away(service: Running) -> None:
    claims = [head("POST", "/v1/segment", "Content-Length: 268435456")] * 4
    claims += [head("POST", "/v1/segment", "Transfer-Encoding: chunked") + b"1\r\nx\r\n"] * 4
    claims += [head("PUT", "/v1/models/a", JSON, "Content-Length: 999") + b"{"] * 50
    with ExitStack() as crowd, health_is_answered(service) as seconds:
        begin = time.monotonic()
        connections = [crowd.enter_context(client(port_of(service))) for _ in claims]
        for connection, data in zip(connections, claims, strict=True):
            connection.sendall(data)
        statuses = [segmented(service) for _ in range(10)]
        assert set(statuses) == {200}
        refusals = {(refused.status, refused.kind) for refused in map(answer, connections)}
        ended = time.monotonic() - begin
    slowest = f"/healthz {max(seconds):.2f} s at most"
    told(f"{len(claims)} bodies that do not come: {refusals} after {ended:.1f} s, {slowest}")
    assert refusals == {(408, "stood-still")}
    assert IDLE_SECONDS - 1 < ended < IDLE_SECONDS + 5
