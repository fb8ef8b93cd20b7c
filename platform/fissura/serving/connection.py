"""One client connection: bounds on the head of a request, and on idle time.

An application sees a request once its head is complete; neither Ray Serve's proxies nor uvicorn bound the
size of a head or its duration. So the protocol enforces these bounds.
"""

import asyncio
from collections import Counter
from typing import Any, ClassVar

import httptools
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from fissura.serving.limits import Limits
from fissura.serving.middleware import HEADERS
from fissura.serving.open_connections import OpenConnections
from fissura.serving.problems import Problem, problem_response, stood_still

HEAD_BYTES = 2**15
ADDRESS_BYTES = 2**14
FIELDS = 256
SLICE_BYTES = 2**13
"""Parsed at a time, except for a body of known length; bounds are exceeded by at most this much."""
CHUNK_BYTES = 16
"""The most that the size and line ends of a chunk take; anything more is an extension."""
PIPELINED = 16
BACKLOG = 4096
LINGER_SECONDS = 1.0
GRACE_SECONDS = 1.0
"""The application's timeout of a body comes first: it counts and explains it."""
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/-/healthz"})
"""Health checks; the last is Ray Serve's own."""


_LARGE_HEAD = Problem(
    "head-too-large",
    f"a head has at most {HEAD_BYTES} bytes in {FIELDS} fields, as have trailers and chunk extensions",
    "this one has more",
    "send fewer and shorter header fields",
)
_LONG_ADDRESS = Problem(
    "address-too-long",
    f"the address of a request has at most {ADDRESS_BYTES} bytes",
    "this one has more",
    "send images and documents in the body",
)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol within limits.

    A head has at most `HEAD_BYTES` in `FIELDS` fields, its address `ADDRESS_BYTES` of them; the trailers and
    chunk extensions of a body together at most as much. A head must arrive within `Limits.idle_seconds`;
    neither a body nor the reading of a response may pause for longer. If one address, or all clients
    together, exceed their number of connections in `Limits`, those idle the longest are closed. While all
    clients together exceed it, requests wait; if no connection is idle, they are refused, except for health
    checks, which never wait.
    """

    LIMITS: ClassVar[Limits]
    CONNECTIONS: ClassVar[OpenConnections]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.ws_protocol_class = None  # no WebSockets
        self._in_head, self._head_begun, self._in_body, self._head_bytes = True, False, False, 0
        self._other_bytes = 0  # received, and neither of a body nor the frame of a chunk
        self._body_left = 0  # bytes left of a body of known length
        self._begun = self.since = self.loop.time()
        self._unread = 0
        self._problem: Problem | None = None
        self._refused = False
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def waits_for_client(self) -> bool:
        """Whether it waits for the client: its head or its body is incomplete."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return not answering if self._in_head else self._in_body and not self.flow.read_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._check_idle_in(self.LIMITS.idle_seconds)
        self.CONNECTIONS.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses the received bytes, a slice at a time."""
        self._unset_keepalive_if_required()
        begin = 0
        # after a refusal the rest is discarded, until the client has read the response
        while begin < len(data) and not self._refused:
            end = begin + max(SLICE_BYTES, self._body_left)
            part, begin = data[begin:end], end
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade:
                self.cycle.keep_alive = False  # answered without the upgrade
            except httptools.HttpParserError:
                self._refuse(self._problem or _malformed("it is none"))
                return
            self._other_bytes = max(0, self._other_bytes + len(part))
            if self._other_bytes > HEAD_BYTES:
                self._refuse(_LARGE_HEAD)
            elif len(self.pipeline) > PIPELINED:
                self._refuse(_malformed(f"more than {PIPELINED} were sent before the first was answered"))

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_begun, self._head_bytes = True, True, 0
        self._other_bytes = -SLICE_BYTES  # the bytes before it in this slice are not its own

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        super().on_url(url)
        if len(self.url) > ADDRESS_BYTES:
            self._fail(_LONG_ADDRESS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; trailers are ignored."""
        if self._in_head:
            self._head_bytes += len(name) + len(value) + 4
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete, and the application begins."""
        if self._head_bytes + len(self.url) > HEAD_BYTES or len(self.headers) > FIELDS:
            self._fail(_LARGE_HEAD)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._fail(_malformed("it has one Host: this one has none, or several"))
        self._in_head, self._in_body = False, True
        self._begun = self.since = self.loop.time()
        self._other_bytes = -SLICE_BYTES
        fields = dict(self.headers)
        self._body_left = 0 if b"transfer-encoding" in fields else int(fields.get(b"content-length", 0))
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """The application begins when it is this request's turn."""
        if cycle.scope["path"] in ALWAYS_ANSWERED:
            super()._start_asgi_task(cycle, app)
            return
        self.CONNECTIONS.head_complete(self, cycle, app)

    def on_chunk_header(self) -> None:
        """The line before a chunk."""
        self._other_bytes -= CHUNK_BYTES

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.since = self.loop.time()
        self._other_bytes -= len(body)
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._in_body = False
        super().on_message_complete()
        self._await_next_head()

    def on_response_complete(self) -> None:
        """The response is written."""
        super().on_response_complete()
        self._await_next_head()

    def _await_next_head(self) -> None:
        """Waits for the next head once request and response are complete."""
        if not self._in_body and self.cycle.response_complete:
            self._in_head, self._head_begun, self.since = True, False, self.loop.time()

    def resume_writing(self) -> None:
        """The client reads its response."""
        super().resume_writing()
        self._unread = 0

    def _fail(self, problem: Problem) -> None:
        self._problem = problem
        raise ValueError(problem.kind)  # the parser's only way to stop

    def _check_idle(self) -> None:
        """Closes or refuses a connection that was idle for too long."""
        limits, now, unread = self.LIMITS, self.loop.time(), self.transport.get_write_buffer_size()
        idle, wait = now - self.since, limits.idle_seconds
        if unread:
            answered_late = self._in_head and idle > limits.seconds
            if self._refused or answered_late or 0 < self._unread <= unread:
                self.CONNECTIONS.refused["unread"] += 1
                self.transport.abort()
                return
        elif self._refused:
            self.transport.close()
            return
        elif self.waits_for_client:
            left = wait - idle
            if self.cycle is not None and not self.cycle.response_complete:
                left += GRACE_SECONDS
            elif self._in_body:
                left = min(left, limits.seconds - (now - self._begun))
            if left <= 0:
                if self._in_head and not self._head_begun:
                    self.transport.close()
                else:
                    self._refuse(stood_still(limits.idle_seconds))
                return
            wait = min(wait, left)
        self._unread = unread
        self._check_idle_in(wait)

    def _check_idle_in(self, seconds: float) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        # a turn of the loop later, so that bytes that arrived while it was busy are read first
        self._idle_timer = self.loop.call_later(seconds, self._check_idle_soon)

    def _check_idle_soon(self) -> None:
        self._idle_timer = self.loop.call_later(0, self._check_idle)

    def timeout_keep_alive_handler(self) -> None:
        """The next request has not arrived, unless it is only not read yet."""
        self.timeout_keep_alive_task = self.loop.call_later(0, super().timeout_keep_alive_handler)

    def _refuse(self, problem: Problem) -> None:
        """Sends the problem, and closes when the client has had time to read it."""
        # the response may have begun; or an earlier request waits for its own, and must not get this one
        begun = self.cycle is not None and (
            self.cycle.response_started if self._in_body else not self.cycle.response_complete
        )
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refused, self.since = True, 0.0
        self.CONNECTIONS.refused[problem.kind] += 1
        if not begun and not self.transport.is_closing():
            response = problem_response(problem)
            fields = [*response.raw_headers, *HEADERS, (b"connection", b"close")]
            lines = [name + b": " + value for name, value in fields]
            self.transport.write(
                STATUS_LINE[problem.status] + b"\r\n".join([*lines, b"", bytes(response.body)])
            )
            if self.transport.can_write_eof():
                # closed at once, a client that still sends would lose the response
                self.transport.write_eof()
                self._check_idle_in(LINGER_SECONDS)
                return
        self.transport.close()


def limited(limits: Limits, refused: Counter[str] | None = None) -> type[Connection]:
    """The protocol within these limits, for uvicorn's `http`. Refusals are counted in `refused` by the kind
    of their problem, closed connections as `no-room` or `unread`."""

    class Limited(Connection):
        LIMITS, CONNECTIONS = limits, OpenConnections(limits, Counter() if refused is None else refused)

    return Limited


def server_config(app: ASGIApp, limits: Limits, refused: Counter[str] | None = None) -> Config:
    """The uvicorn configuration that serves `app` within the limits; `refused` as for `limited`."""
    # uvicorn's own logging configuration would close Ray Serve's handlers: a restarted controller asks a
    # replica for their file, and replaces a replica that has none
    return Config(
        app,
        http=limited(limits, refused),
        ws="none",
        log_config=None,
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


def _malformed(detail: str) -> Problem:
    return Problem("malformed", "a request is one of HTTP/1.1", detail, "send it as a program for HTTP does")
