"""What Ray Serve's proxy says by itself reaches a client as a problem document, and all else as it is."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS

from fissura.distributed.serving.proxy import ProxyProblems, controller_options, is_unbounded, middlewares
from fissura.serving.connection import Connection, limited
from fissura.serving.limits import Limits
from serving_door import running

PROBLEM = [(b"content-type", b"application/problem+json")]
TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


def through(messages: Sequence[Message], *, fails: bool = False, kind: str = "http") -> list[Message]:
    """What comes out of the middleware where the proxy sends these messages, and then fails."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if fails:
            raise ConnectionError("secret internals")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    try:
        asyncio.run(ProxyProblems(proxy)({"type": kind}, receive, send))
    except ConnectionError:
        assert fails
    return sent


def answer(status: int, headers: list[tuple[bytes, bytes]]) -> list[Message]:
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": b"said", "more_body": True},
        {"type": "http.response.body", "body": b" more"},
    ]


class TestAnAnswer:
    @pytest.mark.parametrize(
        "sent", [answer(200, TEXT), answer(429, PROBLEM), answer(500, PROBLEM), answer(200, [])]
    )
    def test_of_the_service_stays_as_it_is(self, sent: list[Message]) -> None:
        assert through(sent) == sent

    def test_that_breaks_off_stays_broken(self) -> None:
        sent = answer(200, TEXT)[:2]
        assert through(sent, fails=True) == sent

    @pytest.mark.parametrize(
        "sent",
        [[], answer(503, TEXT), answer(500, TEXT), answer(408, TEXT), answer(404, []), answer(503, TEXT)[:1]],
    )
    @pytest.mark.parametrize("fails", [False, True])
    def test_of_ray_serve_itself_or_none_is_a_problem_with_a_time_to_try_again(
        self, sent: list[Message], fails: bool
    ) -> None:
        start, body = through(sent, fails=fails)
        headers = dict(start["headers"])
        assert (start["status"], headers[b"content-type"]) == (503, b"application/problem+json")
        assert headers[b"retry-after"] == b"5"
        document = json.loads(body["body"])
        assert document["type"] == "urn:fissura:problem:not-ready"
        assert "said" not in document["detail"]
        assert "secret" not in json.dumps(document)

    def test_to_no_request_over_http_is_left_alone(self) -> None:
        assert through([{"type": "websocket.close"}], kind="websocket") == [{"type": "websocket.close"}]


def test_its_connections_are_within_the_limits_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    [environment] = controller_options(Limits(idle_seconds=7)).values()
    for name, value in environment["env_vars"].items():
        monkeypatch.setenv(name, value)
    middlewares()
    config = uvicorn.Config(lambda: None, factory=True)  # as Ray Serve makes it
    config.load()
    assert issubclass(config.http_protocol_class, Connection)
    assert config.http_protocol_class.LIMITS.idle_seconds == 7


def test_one_that_reads_any_head_is_known_from_one_that_does_not() -> None:
    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("success")(scope, receive, send)

    for http, unbounded in (("httptools", True), (limited(Limits()), False)):
        with running(uvicorn.Config(proxy, http=http, lifespan="off", log_level="warning")) as (port, _):
            assert is_unbounded("127.0.0.1", port) is unbounded
    assert not is_unbounded("127.0.0.1", port)


def test_ray_serve_finds_it_by_the_name_that_the_documents_give() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    [path] = re.findall(r"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=([\w.]+)", guide)
    module, _, name = path.rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is middlewares
    assert [one.cls for one in middlewares()] == [ProxyProblems]
