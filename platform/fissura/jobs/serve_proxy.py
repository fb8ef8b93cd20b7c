"""What Ray Serve's HTTP proxy answers by itself, as problem documents: it speaks plain text, or nothing."""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fissura.serving.problems import MEDIA_TYPE, Problem, problem_response

RETRY_SECONDS = 5


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxy where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names this."""
    return [Middleware(ProxyProblems)]


class ProxyProblems:
    """Middleware: an error that is no problem document becomes one, and so does the silence after the process
    that was to answer has died. What was answered in part stays so."""

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
