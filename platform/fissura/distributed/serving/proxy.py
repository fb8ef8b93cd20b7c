"""Applies the service's limits to Ray Serve's HTTP proxies. By itself a proxy limits neither heads nor
connections nor the time that a client takes for them, and reports errors as plain text, or not at all.
"""

import json
import os
import socket
from typing import Any

import uvicorn.config
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fissura.serving.connection import HEAD_BYTES, limited
from fissura.serving.limits import Limits
from fissura.serving.problems import MEDIA_TYPE, Problem, problem_response

RETRY_SECONDS = 5
CALLBACK_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
LIMITS_VARIABLE = "FISSURA_PROXY_LIMITS"


def controller_options(limits: Limits) -> dict[str, Any]:
    """The options of a Ray Serve that is started for a service: its proxies, which are started with the
    environment of its controller, keep these limits."""
    callback = f"{middlewares.__module__}.{middlewares.__name__}"
    variables = {CALLBACK_VARIABLE: callback, LIMITS_VARIABLE: json.dumps(limits.plain())}
    return {"runtime_env": {"env_vars": variables}}


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxy where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names this."""
    limits = Limits.load(json.loads(os.environ.get(LIMITS_VARIABLE, "{}")), source=LIMITS_VARIABLE)
    # Ray Serve asks for this just before it makes its uvicorn, whose protocol it lets nobody choose
    uvicorn.config.HTTP_PROTOCOLS["auto"] = limited(limits)  # type: ignore[assignment]
    return [Middleware(ProxyProblems)]


def is_unbounded(host: str, port: int) -> bool:
    """Whether the proxy there accepts a head that is too large: it was started without `middlewares`. False
    if nothing listens there."""
    fields = f"Host: localhost\r\nPadding: {'a' * 2 * HEAD_BYTES}\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(f"GET /-/healthz HTTP/1.1\r\n{fields}".encode())
            return connection.recv(16).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class ProxyProblems:
    """Middleware: turns errors into problem documents, also a missing response after the answering process
    died. Partial responses stay."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = foreign = False

        async def sent(message: Message) -> None:
            nonlocal begun, foreign
            if message["type"] == "http.response.start":
                kind = dict(message.get("headers", [])).get(b"content-type", b"")
                foreign = message["status"] >= 400 and not kind.startswith(MEDIA_TYPE.encode())
            if not foreign:
                begun = True
                await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            if not begun:
                await problem_response(_lost())(scope, receive, send)


def _lost() -> Problem:
    return Problem(
        "not-ready",
        "a request is answered by a process of the service",
        "the one that had it ended, or none has started",
        "send it again after the seconds of Retry-After",
        retry_after=RETRY_SECONDS,
    )
