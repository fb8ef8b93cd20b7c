"""The HTTP process of a service on this machine: it listens itself, without Ray Serve's proxy."""

import asyncio
import socket
import time
from collections import Counter
from typing import Any

import uvicorn
from ray import serve

from fissura.core.errors import FissuraError
from fissura.core.spec import Spec
from fissura.distributed.serving.host import Front
from fissura.distributed.serving.ingress import http_application
from fissura.distributed.serving.replica import QUIET
from fissura.serving.connection import BACKLOG, server_config

BOUND_WITHIN_SECONDS = 30.0


class Address(Spec):
    """Where the service listens."""

    host: str = "127.0.0.1"
    port: int = 8000

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def listening(at: Address) -> socket.socket:
    """A socket that listens at `at`.

    Raises:
        OSError: the address is in use, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    return socket.create_server((at.host, at.port), family=family, backlog=BACKLOG)


class Listener:
    """A replica that is an HTTP server."""

    async def __init__(self, front: dict[str, Any], at: dict[str, Any]) -> None:  # type: ignore[misc]
        loaded = Front.load(front, source="service")
        refused = Counter[str]()
        app = http_application(loaded, refused)
        self._server = uvicorn.Server(server_config(app, loaded.limits, refused))
        listening_socket = await self._opened(Address.load(at, source="address"))
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listening_socket]))
        while not self._server.started:
            if self._serving.done():
                raise FissuraError("the HTTP process ended before it began") from self._serving.exception()
            await asyncio.sleep(0.02)

    async def _opened(self, at: Address) -> socket.socket:
        """The socket; a previous process that died may hold the address for a moment."""
        deadline = time.monotonic() + BOUND_WITHIN_SECONDS
        while True:
            try:
                return listening(at)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def check_health(self) -> None:
        """Raises where the server has ended, so that Ray Serve starts another."""
        if self._serving.done():
            raise FissuraError("the HTTP server ended") from self._serving.exception()

    async def close(self) -> None:
        """Accepts no more requests; returns when the accepted ones are answered."""
        self._server.should_exit = True
        await asyncio.wait([self._serving])


def listener_application(front: Front, at: Address) -> serve.Application:
    """The HTTP process of `front`, which listens at `at`."""
    deployment = serve.deployment(
        Listener,
        name="http",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=1,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=2,
        logging_config=QUIET,
    )
    return deployment.bind(front.plain(), at.plain())
