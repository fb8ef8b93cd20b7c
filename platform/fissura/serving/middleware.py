"""Middleware of every request: checks its site, token and body size; counts it; adds headers; and answers
with a problem if the service fails."""

import logging
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fissura.serving.body import bounded, claimed_length
from fissura.serving.problems import Refused, failed, problem_response
from fissura.serving.sites import check_host, check_site
from fissura.serving.tokens import check_token

if TYPE_CHECKING:
    from fissura.serving.service import Service

OPEN = frozenset({"/", "/healthz", "/readyz"})
"""Routes without a token: they reveal nothing about models or images."""
IMAGES = frozenset({"/v1/segment", "/v1/classify"})
DOCUMENT_BYTES = 2**16
CLIENT_GONE = 499  # no response was sent; nginx's status for it
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """Middleware. A body holds images, or a document of at most `DOCUMENT_BYTES`."""

    def __init__(self, app: ASGIApp, service: "Service") -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), CLIENT_GONE
        # HEAD is answered as GET without the body (RFC 9110, section 9.3.2)
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            try:
                await self._checked(scope, receive, send_with_headers)
            except ClientDisconnect:
                pass
            except Refused as refused:
                await problem_response(refused.problem)(scope, receive, send_with_headers)
            except Exception:
                if status != CLIENT_GONE:
                    raise
                logging.getLogger(__name__).exception("a request was not answered")
                await problem_response(failed("the service failed"))(scope, receive, send_with_headers)
        finally:
            telemetry, route = self._service.telemetry, getattr(scope.get("route"), "path", "none")
            telemetry.requests.labels(route, str(status)).inc()
            telemetry.seconds.labels(route).observe(time.monotonic() - started)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, headers = self._service, Headers(scope=scope)
        if service.token_digest is None:
            check_host(headers)
        check_site(scope["method"], headers)
        if scope["path"] not in OPEN:
            check_token(service.token_digest, headers.get("authorization"))
        most = service.limits.body_bytes if scope["path"] in IMAGES else DOCUMENT_BYTES
        claimed_length(headers, most=most)
        await self._app(scope, bounded(receive, most=most, limits=service.limits), send)
