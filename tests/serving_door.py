"""A service without a model on a socket of its own, and clients that speak as they like."""

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.connection import server_config
from fissura.serving.hosting import Hosted, Models, ReplicaCount
from fissura.serving.limits import Limits
from fissura.serving.query import ImageQuery
from fissura.serving.service import Service
from fissura.serving.tokens import token_digest
from fissura.serving.worker import Reply

CARD = {"task": "segmentation", "run": "r"}


class Stub:
    """A host that answers each image at once with how many bytes it has, and counts its rollbacks."""

    def __init__(self) -> None:
        self.rollbacks = 0
        self.hosted = Hosted(name="cracks", version=2, previous=1, card=CARD)

    def models(self) -> Models:
        return Models("cracks", {"cracks": self.hosted})

    def replicas(self) -> Mapping[str, ReplicaCount]:
        return {}

    async def answer(
        self, model: Hosted, photograph: bytes, asked: ImageQuery, *, seconds: float = 0.0
    ) -> Reply:
        return Reply({"image": {}, "bytes": len(photograph), "version": 2, "seconds": 0.0})

    async def put(self, name: str, run: Path, *, threshold: float | None, default: bool) -> Hosted:
        return self.hosted

    async def roll_back(self, name: str) -> Hosted:
        self.rollbacks += 1
        return self.hosted


class Door(NamedTuple):
    """A service that listens, and its parts."""

    port: int
    service: Service
    host: Any
    server: uvicorn.Server


@contextmanager
def listening(host: Any = None, *, token: str | None = None, **limits: Any) -> Iterator[Door]:
    """The service as one machine has it, in a thread."""
    host, digest = host or Stub(), token_digest(token) if token else None
    refused = Counter[str]()
    service = Service(host, limits=Limits(**limits), roots=Roots([]), token_digest=digest, refused=refused)
    with running(server_config(build_app(service), service.limits, refused)) as (port, server):
        yield Door(port, service, host, server)


@contextmanager
def running(config: uvicorn.Config) -> Iterator[tuple[int, uvicorn.Server]]:
    """The port of a server in a thread, and the server."""
    server, door = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])))
    thread.start()
    try:
        until(lambda: server.started)
        yield door.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def serve_alone() -> None:
    """The service with its usual limits, in a process of its own, which prints its port."""
    service = Service(Stub(), limits=Limits(), roots=Roots([]))
    door = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(door.getsockname()[1], flush=True)  # noqa: T201
    asyncio.run(uvicorn.Server(server_config(build_app(service), service.limits)).serve(sockets=[door]))


def until(true: Callable[[], object], *, seconds: float = 20.0) -> float:
    """The seconds until it is true."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < seconds, "it did not come true"
        time.sleep(0.01)
    return time.monotonic() - begin


def client(port: int) -> socket.socket:
    """A connection that gives up after 20 s."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


class Answer(NamedTuple):
    """What came of a connection that has ended, or of the first answer on one."""

    status: int
    head: str
    body: bytes

    @property
    def kind(self) -> str:
        """The kind of a problem."""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


def answer(connection: socket.socket) -> Answer:
    """The first answer on a connection; a status of 0 where it ends without one."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (part := connection.recv(65536)):
                return Answer(0, "", data)
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
        while len(body) < length:
            body += connection.recv(65536)
    except ConnectionError:
        return Answer(0, "", data)
    return Answer(int(data[9:12]), "\n".join(lines[1:]), body)


def sent(port: int, *parts: bytes) -> Answer:
    """The answer to what is sent on a connection of its own; it may come before all is sent."""
    with client(port) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except ConnectionError:
            pass
        return answer(connection)


def head(method: str, path: str, *fields: str, host: str = "127.0.0.1") -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()
