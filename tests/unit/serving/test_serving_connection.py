"""What a client may do to a connection before, in and after its request: a bound on each, and health all the
while."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fissura.serving.connection import FIELDS, HEAD_BYTES, server_config
from fissura.serving.limits import Limits
from fissura.serving.open_connections import BEGUN_AT_A_TIME
from serving_door import Answer, Door, answer, client, head, listening, running, sent, until

CHUNKED = head("PUT", "/v1/models/a", "Content-Type: application/json", "Transfer-Encoding: chunked")
BOUND = 2**16  # bytes after which every endless thing has been refused


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with listening() as door:
        yield door


def swallowed(port: int, begin: bytes, more: bytes) -> tuple[Answer, int]:
    """The answer to a request that begins and then has more of the same for ever, and how many bytes of it
    had been sent by then."""
    with client(port) as connection:
        connection.sendall(begin)
        size = 0
        connection.settimeout(0.02)
        while size < 2**20:
            connection.sendall(more)
            size += len(more)
            try:
                connection.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        connection.settimeout(20)
        return answer(connection), size


ENDLESS = {
    "fields": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", (b"x: " + b"a" * 60 + b"\r\n") * 64, 431),
    "a field": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nx: ", b"a" * 4096, 431),
    "the name of a field": (b"GET /healthz HTTP/1.1\r\n", b"a" * 4096, 431),
    "an address": (b"GET /", b"a" * 4096, 414),
    "a query": (b"GET /healthz?", b"a" * 4096, 414),
    "lines before a request": (b"\r\n", b"\r\n" * 2048, 431),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\n", (b"x: " + b"a" * 60 + b"\r\n") * 64, 431),
    "a trailer": (CHUNKED + b"1\r\n{\r\n0\r\nx: ", b"a" * 4096, 431),
    "a chunk's extension": (CHUNKED + b"1;", b"a" * 4096, 431),
    "an extension of each chunk": (CHUNKED, (b"1;" + b"a" * 200 + b"\r\n{\r\n") * 20, 431),
}


class TestWhatHasNoEnd:
    @pytest.mark.parametrize("name", ENDLESS)
    def test_is_refused_within_its_first_64_kilobytes(self, door: Door, name: str) -> None:
        begin, more, status = ENDLESS[name]
        refused, size = swallowed(door.port, begin, more)
        assert refused.status == status
        assert refused.kind == {431: "head-too-large", 414: "address-too-long"}[status]
        assert size <= BOUND
        assert "connection: close" in refused.head
        assert sent(door.port, head("GET", "/healthz")).status == 200

    def test_is_refused_though_all_of_it_is_sent_before_the_answer_is_read(self, door: Door) -> None:
        flood = b"GET /healthz HTTP/1.1\r\n" + (b"x: " + b"a" * 60 + b"\r\n") * 20_000
        assert sent(door.port, flood).status == 431

    def test_is_not_what_is_only_large(self, door: Door) -> None:
        fields = [f"x-{number}: {'a' * 100}" for number in range(FIELDS - 6)]
        assert sum(map(len, fields)) > 0.8 * HEAD_BYTES
        assert sent(door.port, head("GET", "/healthz", *fields)).status == 200
        assert sent(door.port, head("GET", "/v1/models/" + "a" * 10_000)).status == 405
        assert (
            sent(door.port, CHUNKED, b"1\r\n \r\n" * 50_000, b"1\r\n[\r\n0\r\nx: y\r\n\r\n").kind
            == "invalid-value"
        )

    def test_in_number_of_fields_is_refused_too(self, door: Door) -> None:
        assert sent(door.port, head("GET", "/healthz", *["a:"] * (FIELDS + 1))).status == 431

    def test_in_requests_before_the_first_is_answered_is_refused(self, door: Door) -> None:
        line = head("GET", "/healthz")
        assert sent(door.port, line * 3).status == 200
        with client(door.port) as connection:
            connection.sendall(head("POST", "/v1/segment", "Content-Length: 9") + b"x" * 9 + line * 5000)
            everything = b""
            with suppress(ConnectionError):
                while part := connection.recv(65536):
                    everything += part
        assert everything.count(b"HTTP/1.1 200") < 1000


class TestAFieldAfterTheBody:
    def test_is_none_of_the_request(self) -> None:
        with listening(token="correct-horse-battery-staple") as door:  # noqa: S106
            late = b"1\r\n{\r\n0\r\nAuthorization: Bearer correct-horse-battery-staple\r\n\r\n"
            assert sent(door.port, CHUNKED + late).status == 401


MALFORMED = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a handshake of TLS\r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    head("POST", "/v1/segment", "Content-Length: 1", "Content-Length: 2"),
    head("POST", "/v1/segment", "Content-Length: 5", "Transfer-Encoding: chunked"),
    head("POST", "/v1/segment", "Content-Length: -1"),
    CHUNKED + b"zz\r\n",
    CHUNKED + b"f" * 17 + b"\r\n",
    head("POST", "/v1/segment", f"Content-Length: {2**64}"),
    b"GET /healthz HTTP/1.1\r\n\r\n",
    head("GET", "/healthz", "Host: 127.0.0.1"),
]


@pytest.mark.parametrize("data", MALFORMED)
def test_what_is_no_request_is_told_so_in_a_problem(door: Door, data: bytes) -> None:
    refused = sent(door.port, data)
    assert (refused.status, refused.kind) == (400, "malformed")


def test_a_client_of_http_1_0_names_no_host(door: Door) -> None:
    assert sent(door.port, b"GET /healthz HTTP/1.0\r\n\r\n").status == 200


@pytest.mark.parametrize("length", [2**16 + 1, 2**62, 2**63])
@pytest.mark.parametrize("request_line", ["PUT /v1/models/a", "POST /v1/models/a/rollback"])
def test_a_document_that_claims_too_much_is_refused_before_any_of_it_is_waited_for(
    door: Door, request_line: str, length: int
) -> None:
    method, _, path = request_line.partition(" ")
    begin = time.monotonic()
    refused = sent(door.port, head(method, path, f"Content-Length: {length}"))
    assert (refused.status, refused.kind) == (413, "too-large")
    assert time.monotonic() - begin < door.service.limits.idle_seconds / 2


def test_an_upgrade_is_answered_as_if_none_was_asked_for(door: Door) -> None:
    fields = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: eA==",
    ]
    assert sent(door.port, head("GET", "/healthz", *fields)).status == 200


IDLE = 0.3
PARTS = "Content-Type: multipart/form-data; boundary=b"
JSON = ("Content-Type: application/json",)
STANDING = {
    "nothing": (b"", 0),
    "half a line": (b"GET /hea", 408),
    "half a head": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 408),
    "lines before a request": (b"\r\n\r\n", 0),
    "an image": (head("POST", "/v1/segment", "Content-Length: 99") + b"x", 408),
    "an image in chunks": (head("POST", "/v1/segment", "Transfer-Encoding: chunked") + b"1\r\nx\r\n", 408),
    "parts": (
        head("POST", "/v1/segment", PARTS, "Content-Length: 99") + b"--b",
        408,
    ),
    "a document": (head("PUT", "/v1/models/a", *JSON, "Content-Length: 99") + b"{", 408),
    "a document in chunks": (CHUNKED + b"1\r\n{\r\n", 408),
    "a body that nobody reads": (head("GET", "/healthz", "Content-Length: 99") + b"x", 200),
    "a body of no route": (head("POST", "/nowhere", "Content-Length: 99") + b"x", 404),
}  # fmt: skip


@pytest.fixture(scope="module")
def still() -> Iterator[Door]:
    with listening(idle_seconds=IDLE) as door:
        yield door


class TestAClientThatStandsStill:
    @pytest.mark.parametrize("name", STANDING)
    def test_in_the_midst_is_told_so_and_closed(self, still: Door, name: str) -> None:
        data, status = STANDING[name]
        with client(still.port) as connection:
            connection.sendall(data)
            begin = time.monotonic()
            said = answer(connection)
            assert said.status == status
            if status == 408:
                assert said.kind == "stood-still"
            while connection.recv(4096):  # ends, whatever else is said
                pass
            assert time.monotonic() - begin < IDLE + 5
        until(lambda: not still.server.server_state.connections)

    def test_and_sends_a_byte_now_and_then_is_closed_when_a_head_should_have_come(self, still: Door) -> None:
        with client(still.port) as connection:
            begin = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() < begin + 20:
                    connection.sendall(b"x-")
                    time.sleep(IDLE / 8)
            assert time.monotonic() - begin < 10

    def test_and_reads_no_answer_is_closed(self, still: Door) -> None:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", still.port))
            connection.settimeout(0.2)
            with suppress(TimeoutError, ConnectionError):  # too many that wait for their turn are refused too
                for _ in range(2000):
                    connection.sendall(head("GET", "/"))
            until(lambda: not still.server.server_state.connections)

    @pytest.mark.parametrize("kind", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
    @pytest.mark.parametrize(("method", "path"), [("POST", "/v1/segment"), ("PUT", "/v1/models/a")])
    def test_for_short_times_only_is_served_up_to_the_time_of_a_request(
        self, method: str, path: str, kind: str
    ) -> None:
        part = b"[" if "Length" in kind else b"1\r\n[\r\n"
        with listening(seconds=0.5) as door, client(door.port) as connection:
            connection.sendall(head(method, path, *(JSON if method == "PUT" else ()), kind))
            connection.settimeout(0.05)
            while True:
                connection.sendall(part)
                try:
                    connection.recv(1, socket.MSG_PEEK)
                    break
                except TimeoutError:
                    continue
            connection.settimeout(20)
            assert answer(connection).kind == "too-slow"

    def test_of_a_slow_link_is_no_such_client(self) -> None:
        with listening(idle_seconds=1.5) as door, client(door.port) as connection:
            connection.sendall(head("POST", "/v1/segment", "Content-Length: 10"))
            for _ in range(10):  # for longer than it may stand still
                connection.sendall(b"x")
                time.sleep(0.2)
            assert answer(connection).kind == "unreadable-image"


class TestFourClaimsOfAFullBody:
    def test_turn_nobody_away(self) -> None:
        with listening() as door, ExitStack() as claims:
            claim = head("POST", "/v1/segment", f"Content-Length: {door.service.limits.body_bytes}")
            for begin in [claim] * 4 + [head("POST", "/v1/segment", "Transfer-Encoding: chunked")] * 4:
                claims.enter_context(client(door.port)).sendall(begin)
            until(lambda: len(door.server.server_state.tasks) == 8)
            assert door.service.gate.bytes == 0
            image = head("POST", "/v1/segment", "Content-Length: 9") + b"no images"
            assert sent(door.port, image).kind == "unreadable-image"

    def test_count_with_what_has_come_of_them(self) -> None:
        limits = {"body_bytes": 600_000, "waiting_bytes": 2**20, "idle_seconds": 30.0}
        with listening(**limits) as door, ExitStack() as claims:
            claim = head("POST", "/v1/segment", "Content-Length: 600000")
            first, second = (claims.enter_context(client(door.port)) for _ in range(2))
            for each in (first, second):
                each.sendall(claim + b"x" * 400_000)
            until(lambda: door.service.gate.bytes == 800_000)
            assert sent(door.port, claim).kind == "too-many-waiting"
            first.sendall(b"x" * 200_000)
            assert answer(first).kind == "unreadable-image"
            until(lambda: door.service.gate.bytes == 400_000)
            second.sendall(b"x" * 200_000)
            assert answer(second).kind == "unreadable-image"


class TestManyConnections:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"GET /healthz HTTP/1.1\r\nx: ",
            head("POST", "/v1/segment", "Content-Length: 99") + b"x",
            head("PUT", "/v1/models/a", *JSON, "Content-Length: 99") + b"{",
        ],
    )
    @pytest.mark.parametrize("limits", [{"connections_of_one": 20}, {"connections": 20}])
    def test_that_stand_still_make_room_for_others(self, data: bytes, limits: dict[str, int]) -> None:
        with listening(**limits) as door, ExitStack() as crowd:
            for _ in range(60):
                crowd.enter_context(client(door.port)).sendall(data)
                assert sent(door.port, head("GET", "/healthz")).status == 200
            until(lambda: len(door.server.server_state.connections) <= 20)
            for _ in range(30):
                assert sent(door.port, head("GET", "/v1/models")).status in (200, 503)
            until(lambda: sent(door.port, head("GET", "/v1/models")).status == 200)

    def test_of_which_one_sends_its_body_the_one_that_has_stood_still_the_longest_is_closed(self) -> None:
        with listening(connections_of_one=8) as door, ExitStack() as crowd:
            upload = crowd.enter_context(client(door.port))
            upload.sendall(head("POST", "/v1/segment", "Content-Length: 30"))
            for size in range(1, 30):
                crowd.enter_context(client(door.port)).sendall(
                    head("POST", "/v1/segment", "Content-Length: 99")
                )
                upload.sendall(b"x")
                until(lambda size=size: door.service.gate.bytes == size)
            upload.sendall(b"x")
            assert answer(upload).kind == "unreadable-image"


class Busy:
    """An application that notes which requests begin, and lets nothing else go on while it is `held`."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.held, self.free = threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.append(scope["path"])
        if scope["path"] == "/held":
            self.held.set()
            self.free.wait(20)
        while scope["path"] == "/body" and (await receive())["type"] != "http.disconnect":
            pass
        await PlainTextResponse("here")(scope, receive, send)


class TestABurst:
    """What has come while the process was at something else, and is taken in at once."""

    @pytest.fixture
    def burst(self) -> Iterator[Callable[..., list[Answer]]]:
        with ExitStack() as stack:

            def burst(limits: Limits, *heads: bytes, answered: int) -> list[Answer]:
                config = server_config(busy, limits)
                config.lifespan = "off"
                port, _ = stack.enter_context(running(config))
                stack.callback(busy.free.set)
                stack.enter_context(client(port)).sendall(head("GET", "/held"))
                assert busy.held.wait(20)
                crowd = [stack.enter_context(client(port)) for _ in heads]
                for connection, data in zip(crowd, heads, strict=True):
                    connection.sendall(data)
                busy.free.set()
                return [answer(connection) for connection in crowd[-answered:]]

            busy = self.busy = Busy()
            yield burst

    def test_keeps_health_waiting_for_no_more_than_one_turn(self, burst: Callable[..., list[Answer]]) -> None:
        heads = [head("GET", "/v1/models")] * 100
        assert {each.status for each in burst(Limits(), *heads, head("GET", "/healthz"), answered=101)} == {
            200
        }
        assert self.busy.begun.index("/healthz") <= 1 + BEGUN_AT_A_TIME

    def test_of_half_bodies_is_closed_before_a_request_behind_it_is_told_that_there_is_no_room(
        self, burst: Callable[..., list[Answer]]
    ) -> None:
        half = head("POST", "/body", "Content-Length: 99") + b"x"
        [last] = burst(Limits(connections=40), *[half] * 100, head("GET", "/v1/models"), answered=1)
        assert (last.status, last.body) == (200, b"here")


def test_refused_connections_are_counted_by_their_reason(door: Door) -> None:
    assert sent(door.port, head("GET", "/healthz", f"x: {'a' * 2 * HEAD_BYTES}")).status == 431
    text = sent(door.port, head("GET", "/metrics")).body.decode()
    assert 'fissura_refused_connections_total{reason="head-too-large"}' in text
