"""One connection of a client: what it may send before it is a request, and how long it may stand still.

An application sees a request when its head is whole, and Ray Serve's proxies and uvicorn bound neither a head
nor the time that it takes. So these bounds are kept where the bytes arrive.
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

from fissura.serving.crowd import Crowd
from fissura.serving.limits import Limits
from fissura.serving.middleware import HEADERS
from fissura.serving.problems import Problem, problem_response, stood_still

HEAD_BYTES = 2**15
ADDRESS_BYTES = 2**14
FIELDS = 256
SLICE_BYTES = 2**13
"""So much is parsed at a time, beside a body of known length; a bound is passed by so much at most."""
CHUNK_BYTES = 16
"""What the size and the ends of a chunk's lines take, at most; what is beyond is an extension."""
PIPELINED = 16
BACKLOG = 4096
LINGER_SECONDS = 1.0
GRACE_SECONDS = 1.0
"""The application ends a body first, and says why in its own count and words."""
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/-/healthz"})
"""What tells whether the service lives; the last is Ray Serve's own."""


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

    A head has `HEAD_BYTES` in `FIELDS` fields, its address `ADDRESS_BYTES` of them; the trailers and chunk
    extensions of a body together as much as a head. A head comes within `Limits.idle_seconds`; a body, and
    the reading of an answer, stand still no longer. Where a client's address or all together have more
    connections than `Limits` allows, those that have stood still the longest are closed; while there are more
    than all may have no request begins, and where these do not stand still it is told of the service's health
    alone. What asks for health is before all others, however many came at once.
    """

    LIMITS: ClassVar[Limits]
    CROWD: ClassVar[Crowd]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.ws_protocol_class = None  # nothing here speaks it
        self._in_head, self._head_begun, self._in_body, self._head_bytes = True, False, False, 0
        self._loose_bytes = 0  # that have come and are neither of a body nor the frame of a chunk
        self._body_left = 0  # of a body whose length is known
        self._begun = self.since = self.loop.time()
        self._unread = 0
        self._problem: Problem | None = None
        self._refused = False
        self._watch: asyncio.TimerHandle | None = None

    @property
    def waits_for_client(self) -> bool:
        """Whether only the client can bring it forward: its head or its body is not whole."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return not answering if self._in_head else self._in_body and not self.flow.read_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._look_again(self.LIMITS.idle_seconds)
        self.CROWD.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed, by whomever."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what has come, a slice at a time."""
        self._unset_keepalive_if_required()
        begin = 0
        # once it is refused, what still comes is read and forgotten, until the client has read why
        while begin < len(data) and not self._refused:
            end = begin + max(SLICE_BYTES, self._body_left)
            part, begin = data[begin:end], end
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade:
                self.cycle.keep_alive = False  # it is answered as what it is without
            except httptools.HttpParserError:
                self._refuse(self._problem or _malformed("it is none"))
                return
            self._loose_bytes = max(0, self._loose_bytes + len(part))
            if self._loose_bytes > HEAD_BYTES:
                self._refuse(_LARGE_HEAD)
            elif len(self.pipeline) > PIPELINED:
                self._refuse(_malformed(f"more than {PIPELINED} were sent before the first was answered"))

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_begun, self._head_bytes = True, True, 0
        self._loose_bytes = -SLICE_BYTES  # those before it in this slice are none of its own

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        super().on_url(url)
        if len(self.url) > ADDRESS_BYTES:
            self._fail(_LONG_ADDRESS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; those that follow a body are none of the request's."""
        if self._in_head:
            self._head_bytes += len(name) + len(value) + 4
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole, and the application begins."""
        if self._head_bytes + len(self.url) > HEAD_BYTES or len(self.headers) > FIELDS:
            self._fail(_LARGE_HEAD)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._fail(_malformed("it has one Host: this one has none, or several"))
        self._in_head, self._in_body = False, True
        self._begun = self.since = self.loop.time()
        self._loose_bytes = -SLICE_BYTES
        fields = dict(self.headers)
        self._body_left = 0 if b"transfer-encoding" in fields else int(fields.get(b"content-length", 0))
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """The application begins when it is this request's turn."""
        if cycle.scope["path"] in ALWAYS_ANSWERED:
            super()._start_asgi_task(cycle, app)
            return
        self.CROWD.asked(self, cycle, app)

    def on_chunk_header(self) -> None:
        """The line before a chunk."""
        self._loose_bytes -= CHUNK_BYTES

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.since = self.loop.time()
        self._loose_bytes -= len(body)
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        super().on_message_complete()
        self._rest()

    def on_response_complete(self) -> None:
        """The answer is written."""
        super().on_response_complete()
        self._rest()

    def _rest(self) -> None:
        """Where request and answer are whole, the next head is waited for."""
        if not self._in_body and self.cycle.response_complete:
            self._in_head, self._head_begun, self.since = True, False, self.loop.time()

    def resume_writing(self) -> None:
        """The client reads its answer."""
        super().resume_writing()
        self._unread = 0

    def _fail(self, problem: Problem) -> None:
        self._problem = problem
        raise ValueError(problem.kind)  # the parser's only way to stop

    def _look(self) -> None:
        """Ends what has stood still for too long."""
        limits, now, unread = self.LIMITS, self.loop.time(), self.transport.get_write_buffer_size()
        still, wait = now - self.since, limits.idle_seconds
        if unread:
            answered_late = self._in_head and still > limits.seconds
            if self._refused or answered_late or 0 < self._unread <= unread:
                self.CROWD.refused["unread"] += 1
                self.transport.abort()
                return
        elif self._refused:
            self.transport.close()
            return
        elif self.waits_for_client:
            left = wait - still
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
        self._look_again(wait)

    def _look_again(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        # and a turn of the loop later: what came while it was busy is read before it is judged
        self._watch = self.loop.call_later(seconds, self._look_soon)

    def _look_soon(self) -> None:
        self._watch = self.loop.call_later(0, self._look)

    def timeout_keep_alive_handler(self) -> None:
        """The next request has not come, unless it is there and only not read yet."""
        self.timeout_keep_alive_task = self.loop.call_later(0, super().timeout_keep_alive_handler)

    def _refuse(self, problem: Problem) -> None:
        """Says what is wrong, and closes when the client has had the time to read it."""
        # the request of a body may have its answer; one before a head may wait for it, and would get this one
        begun = self.cycle is not None and (
            self.cycle.response_started if self._in_body else not self.cycle.response_complete
        )
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._refused, self.since = True, 0.0
        self.CROWD.refused[problem.kind] += 1
        if not begun and not self.transport.is_closing():
            response = problem_response(problem)
            fields = [*response.raw_headers, *HEADERS, (b"connection", b"close")]
            lines = [name + b": " + value for name, value in fields]
            self.transport.write(
                STATUS_LINE[problem.status] + b"\r\n".join([*lines, b"", bytes(response.body)])
            )
            if self.transport.can_write_eof():
                # closed at once, what the client still sends would take the answer away from it
                self.transport.write_eof()
                self._look_again(LINGER_SECONDS)
                return
        self.transport.close()


def limited(limits: Limits, refused: Counter[str] | None = None) -> type[Connection]:
    """The protocol within these limits, for uvicorn's `http`. What it refuses is counted in `refused` by the
    kind of its problem; what it closes without a word as `no-room` or `unread`."""

    class Limited(Connection):
        LIMITS, CROWD = limits, Crowd(limits, Counter() if refused is None else refused)

    return Limited


def server_config(app: ASGIApp, limits: Limits, refused: Counter[str] | None = None) -> Config:
    """How uvicorn serves `app` within the limits; `refused` as for `limited`."""
    # uvicorn's own configuration of logging would close the handlers of Ray Serve's: a controller that is
    # started anew asks for their file, and replaces a replica that cannot tell it
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
