"""The connections of a server together: whose request begins next, and who is closed for want of room."""

import asyncio
import math
import resource
from collections import Counter, deque
from typing import Any, NamedTuple, Protocol, cast

from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, problem_response

BEGUN_AT_A_TIME = 16
"""Requests that begin in one turn of the loop: some 20 ms."""
ROOM_SECONDS = 0.05
NO_ROOM = Problem(
    "not-ready",
    "a client has a bounded number of connections at a time",
    "all are in use",
    "send the request again after the seconds of Retry-After, over fewer connections",
    retry_after=1,
)


class Member(Protocol):
    """A connection, as the others see it: whose it is, and since when it stands still."""

    client: tuple[str, int] | None
    connections: set[Any]
    loop: asyncio.AbstractEventLoop
    since: float
    transport: asyncio.Transport

    @property
    def waits_for_client(self) -> bool:
        """Whether only the client can bring it forward."""


class _Request(NamedTuple):
    """One whose head has come, and when."""

    connection: HttpToolsProtocol
    cycle: RequestResponseCycle
    app: ASGI3Application
    came: float


class Crowd:
    """The connections of one server, whose set uvicorn keeps; `refused` counts those that are closed."""

    def __init__(self, limits: Limits, refused: Counter[str]) -> None:
        self.limits, self.refused = limits, refused
        self._requests: deque[_Request] = deque()
        self._beginning = self._room_awaited = False
        self._room_made = -math.inf

    @property
    def most(self) -> int:
        """Connections of all clients; half of the files that the process may open are not theirs."""
        return min(self.limits.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def joined(self, member: Member) -> None:
        """A client has connected. Where its address, or all, may have too many connections, room is made when
        it is known what stands still: what sends nothing for `ROOM_SECONDS`. These begin when all that had
        come in a burst has been read, and end when what came in them has: after a turn of the loop each."""
        too_many = len(member.connections) > min(self.limits.connections_of_one, self.most)
        if self._room_awaited or not too_many:
            return
        self._room_awaited = True
        loop, later = member.loop, member.loop.call_later

        def begin() -> None:
            begun = loop.time()
            later(ROOM_SECONDS, lambda: later(0, self._make_room, member, begun))

        later(ROOM_SECONDS, lambda: later(0, begin))

    def asked(
        self, connection: HttpToolsProtocol, cycle: RequestResponseCycle, app: ASGI3Application
    ) -> None:
        """A request is whole up to its body; it begins when it is its turn."""
        self._requests.append(_Request(connection, cycle, app, connection.loop.time()))
        self._begin_soon(connection.loop)

    def _begin_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._requests and not self._beginning:
            self._beginning = True
            loop.call_soon(self._begin_some, loop)

    def _begin_some(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins with the requests that came first. Where there are too many connections they wait until room
        has been made, once."""
        self._beginning = False
        for _ in range(min(BEGUN_AT_A_TIME, len(self._requests))):
            too_many = len(self._requests[0].connection.connections) > self.most
            if too_many and self._requests[0].came > self._room_made:
                return
            connection, cycle, app, _ = self._requests.popleft()
            if cycle.disconnected:
                continue
            if too_many:
                self.refused[NO_ROOM.kind] += 1
            HttpToolsProtocol._start_asgi_task(connection, cycle, cast(Any, _no_room) if too_many else app)
        self._begin_soon(loop)

    def _make_room(self, member: Member, begun: float) -> None:
        """Closes those that have stood still the longest, since before `begun`, where a client's address or
        all have too many, and an eighth more: each look at all of them costs time."""
        self._room_awaited, self._room_made = False, member.loop.time()
        every: list[Member] = [*member.connections]
        of_one: dict[str | None, list[Member]] = {}
        for each in every:
            of_one.setdefault(each.client[0] if each.client else None, []).append(each)
        crowds = [(crowd, self.limits.connections_of_one) for crowd in of_one.values()]
        for crowd, most in (*crowds, (every, self.most)):
            if len(crowd) > most:
                still = [each for each in crowd if each.waits_for_client and each.since < begun]
                for each in sorted(still, key=lambda each: each.since)[: len(crowd) - most + most // 8]:
                    if each in member.connections:
                        self.refused["no-room"] += 1
                    member.connections.discard(each)
                    each.transport.abort()
        self.joined(member)
        self._begin_soon(member.loop)


async def _no_room(scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(NO_ROOM)
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
