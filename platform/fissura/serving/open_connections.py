"""All connections of a server: which request begins next, and which connection is closed for room."""

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
"""Requests that begin in one turn of the loop: about 20 ms."""
ROOM_SECONDS = 0.05
NO_ROOM = Problem(
    "not-ready",
    "a client has a bounded number of connections at a time",
    "all are in use",
    "send the request again after the seconds of Retry-After, over fewer connections",
    retry_after=1,
)


class Member(Protocol):
    """A connection: its client, and since when it is idle."""

    client: tuple[str, int] | None
    connections: set[Any]
    loop: asyncio.AbstractEventLoop
    since: float
    transport: asyncio.Transport

    @property
    def waits_for_client(self) -> bool:
        """Whether it waits for the client."""


class _Request(NamedTuple):
    """A request with a complete head, and when that arrived."""

    connection: HttpToolsProtocol
    cycle: RequestResponseCycle
    app: ASGI3Application
    arrived: float


class OpenConnections:
    """The connections of one server, whose set uvicorn keeps; `refused` counts the closed ones."""

    def __init__(self, limits: Limits, refused: Counter[str]) -> None:
        self.limits, self.refused = limits, refused
        self._requests: deque[_Request] = deque()
        self._beginning = self._room_awaited = False
        self._room_made = -math.inf

    @property
    def most(self) -> int:
        """The most connections of all clients; they may use half of the process's open files."""
        return min(self.limits.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def joined(self, member: Member) -> None:
        """A client has connected. If its address, or all clients, may have too many connections, room is made
        once idle ones are known: those that send nothing for `ROOM_SECONDS`. A turn of the loop before and
        after that time lets the bytes of a burst be read first."""
        too_many = len(member.connections) > min(self.limits.connections_of_one, self.most)
        if self._room_awaited or not too_many:
            return
        self._room_awaited = True
        loop, later = member.loop, member.loop.call_later

        def begin() -> None:
            begun = loop.time()
            later(ROOM_SECONDS, lambda: later(0, self._make_room, member, begun))

        later(ROOM_SECONDS, lambda: later(0, begin))

    def head_complete(
        self, connection: HttpToolsProtocol, cycle: RequestResponseCycle, app: ASGI3Application
    ) -> None:
        """The head of a request is complete; the request begins when it is its turn."""
        self._requests.append(_Request(connection, cycle, app, connection.loop.time()))
        self._begin_soon(connection.loop)

    def _begin_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._requests and not self._beginning:
            self._beginning = True
            loop.call_soon(self._begin_oldest, loop)

    def _begin_oldest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins the oldest requests. If there are too many connections, they wait until room has been made
        once."""
        self._beginning = False
        for _ in range(min(BEGUN_AT_A_TIME, len(self._requests))):
            too_many = len(self._requests[0].connection.connections) > self.most
            if too_many and self._requests[0].arrived > self._room_made:
                return
            connection, cycle, app, _ = self._requests.popleft()
            if cycle.disconnected:
                continue
            if too_many:
                self.refused[NO_ROOM.kind] += 1
            HttpToolsProtocol._start_asgi_task(connection, cycle, cast(Any, _no_room) if too_many else app)
        self._begin_soon(loop)

    def _make_room(self, member: Member, begun: float) -> None:
        """Closes the connections idle the longest, since before `begun`, if an address or all clients have
        too many; and an eighth more, since each scan of all of them costs time."""
        self._room_awaited, self._room_made = False, member.loop.time()
        all_members: list[Member] = [*member.connections]
        of_address: dict[str | None, list[Member]] = {}
        for each in all_members:
            of_address.setdefault(each.client[0] if each.client else None, []).append(each)
        groups = [(group, self.limits.connections_of_one) for group in of_address.values()]
        for group, most in (*groups, (all_members, self.most)):
            if len(group) > most:
                idle = [each for each in group if each.waits_for_client and each.since < begun]
                for each in sorted(idle, key=lambda each: each.since)[: len(group) - most + most // 8]:
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
