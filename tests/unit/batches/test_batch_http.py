"""The scorer behind an endpoint, against a small server that answers as the service's contract says."""

import asyncio
import hashlib
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fissura.batches import http
from fissura.batches.http import ClientTimeouts, open_endpoint
from fissura.batches.pictures import KINDS
from fissura.batches.scorer import (
    Busy,
    Disagreement,
    Failing,
    Scored,
    Unreachable,
    Unscorable,
    threshold_of_map,
)
from fissura.core.errors import FissuraError, SpecError
from fissura.reports.pictures import RIGHT
from fissura.segmentation.crack_measures import measure

TOKEN = "0123456789abcdef-secret"  # noqa: S105
HEIGHT, WIDTH = 9, 14
CARD = {
    "name": "cracks",
    "version": 3,
    "previous": None,
    "task": "segmentation",
    "run": "1a2b3c4d5e6f",
    "recipe": "small_unet",
    "parameters": 7,
    "threshold": 0.5,
    "classes": ["background", "crack"],
    "trained_on": ["cfd"],
    "finished": "2026-03-01T12:00:00+00:00",
    "code_version": "0.1.0",
}
WALLS = {**CARD, "name": "walls", "task": "classification", "threshold": None, "classes": ["sound", "crack"]}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


PHOTOGRAPH = encoded(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
MAP = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 2


def result(photograph: bytes, **change: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(photograph).hexdigest()
    image: dict[str, Any] = {"name": None, "height": HEIGHT, "width": WIDTH, "sha256": sha256, "remarks": []}
    head = {"model": "cracks", "version": 3, "run": "1a2b3c4d5e6f", "task": "segmentation", "image": image}
    found = measure(MAP >= 128, mm_per_pixel=None)
    cracks = {"cracks": found.plain(), "crack_table": found.table()}
    return {**head, "threshold": 0.5, **cracks, "seconds": 0.01, **change}


def problem(kind: str, status: int, **headers: str) -> web.Response:
    document = {
        "type": f"urn:fissura:problem:{kind}",
        "title": "a rule",
        "status": status,
        "detail": "a value",
    }
    return web.json_response(
        {**document, "remedy": "do this"},
        status=status,
        content_type="application/problem+json",
        headers=headers,
    )


class Service:
    """Answers as the contract says; remembers the requests; `handler` answers for images in its place."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.connections: set[object] = set()
        self.handler: Handler | None = None
        self.models: Any = {"default": "cracks", "models": [CARD, WALLS]}
        self.token: str | None = None
        self.consents = True

    async def expected(self, request: web.Request) -> web.StreamResponse | None:
        """What happens to a request that waits before it sends its body."""
        if not self.consents:
            response = problem("too-large", 413)
            response.force_close()
            return response
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.connections.add(request.transport)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem("no-token", 401, **{"WWW-Authenticate": "Bearer"})
        if request.path == "/v1/models":
            return web.json_response(self.models)
        if self.handler is not None:
            return await self.handler(request)
        self.bodies.append(await request.read())
        return self.scored(self.bodies[-1], request.query.get("answer", "json"), request.path)

    def scored(self, photograph: bytes, answer: str, path: str) -> web.Response:
        if path == "/v1/classify":
            change = {"task": "classification", "label": "crack", "decisions": [0.25]}
            plain = result(photograph, model="walls", **change)
            del plain["threshold"], plain["cracks"]
            return web.json_response(plain)
        if answer == "json":
            return web.json_response(result(photograph))
        assert answer == "probability"
        headers = {"Fissura-Result": json.dumps(result(photograph), separators=(",", ":"))}
        return web.Response(body=encoded(MAP), content_type="image/png", headers=headers)


@asynccontextmanager
async def running(service: Service, *, port: int = 0) -> AsyncIterator[str]:
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", service.answer, expect_handler=service.expected)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def ask(
    service: Service,
    *,
    pictures: tuple[Any, ...] = (),
    mm_per_pixel: float | None = None,
    photograph: bytes = PHOTOGRAPH,
    **options: Any,
) -> Scored:
    """One image through the service."""

    async def one() -> Scored:
        async with running(service) as url, open_endpoint(url, **options) as endpoint:
            return await endpoint.scorer(mm_per_pixel=mm_per_pixel, pictures=pictures).score(
                "a.png", photograph
            )

    return asyncio.run(one())


def answering(response: Callable[[], web.Response]) -> Service:
    """A service that gives this response for every image."""
    service = Service()

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return response()

    service.handler = handler
    return service


class TestARequest:
    def test_carries_the_bytes_as_they_are_and_what_is_asked(self) -> None:
        service = Service()
        scored = ask(service, mm_per_pixel=0.25)
        assert service.bodies == [PHOTOGRAPH]
        (request,) = service.asked[1:]
        assert (request.method, request.path) == ("POST", "/v1/segment")
        assert dict(request.query) == {"model": "cracks", "answer": "json", "mm_per_pixel": "0.25"}
        assert request.headers["Content-Type"] == "application/octet-stream"
        assert int(request.headers["Content-Length"]) == len(PHOTOGRAPH)
        assert scored.pictures == {}
        assert scored.result.cracks == result(PHOTOGRAPH)["cracks"]

    def test_to_a_classifier_asks_for_nothing_but_the_class(self) -> None:
        service = Service()
        scored = ask(service, model="walls")
        (request,) = service.asked[1:]
        assert (request.path, dict(request.query)) == ("/v1/classify", {"model": "walls"})
        assert (scored.result.label, scored.result.decisions) == ("crack", (0.25,))

    def test_goes_through_connections_that_are_kept(self) -> None:
        service = Service()

        async def twenty() -> None:
            async with running(service) as url, open_endpoint(url, concurrency=2) as endpoint:
                scorer = endpoint.scorer(mm_per_pixel=None, pictures=())
                await asyncio.gather(*(scorer.score("a.png", PHOTOGRAPH) for _ in range(20)))

        asyncio.run(twenty())
        assert len(service.asked) == 21
        assert len(service.connections) <= 2

    def test_of_a_large_image_waits_for_the_service_s_consent(self) -> None:
        """Otherwise the refusal is lost with the connection that it ends, and the image stops the batch."""
        service = Service()
        service.consents = False
        with pytest.raises(Unscorable, match="a rule: a value; do this"):
            ask(service, photograph=bytes(64 * 2**20))
        assert len(service.asked) == 1
        service.consents = True
        ask(service, photograph=bytes(2 * 2**20))
        assert service.bodies == [bytes(2 * 2**20)]


class TestPictures:
    def test_are_all_made_of_one_map(self) -> None:
        service = Service()
        pictures = ask(service, pictures=KINDS).pictures
        assert len(service.asked) == 2
        assert np.array_equal(decoded(pictures["probabilities"]), MAP)
        assert np.array_equal(decoded(pictures["masks"]), np.where(MAP >= 128, 255, 0))
        overlay = decoded(pictures["overlays"]).astype(int)
        assert overlay.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(overlay[-1] - 90).max() > 20  # the last rows of the map are cracks
        assert np.abs(overlay[0] - 90).max() < 20
        assert np.abs(overlay[-1, -1] - RIGHT).max() < 40

    def test_are_those_that_were_asked_for(self) -> None:
        assert set(ask(Service(), pictures=("overlays",)).pictures) == {"overlays"}

    @given(st.binary(max_size=200))
    def test_of_a_damaged_map_are_no_image_s_fault(self, cut: bytes) -> None:
        whole = encoded(MAP)
        with pytest.raises((Unreachable, Disagreement)):
            http._map(whole[: len(whole) // 2] + cut, size=(HEIGHT, WIDTH))

    @pytest.mark.parametrize(
        "array", [MAP[1:], np.zeros((HEIGHT, WIDTH, 3), np.uint8)], ids=["of another size", "of colours"]
    )
    def test_are_of_a_map_alone(self, array: np.ndarray) -> None:
        headers = {"Fissura-Result": json.dumps(result(PHOTOGRAPH))}
        service = answering(
            lambda: web.Response(body=encoded(array), content_type="image/png", headers=headers)
        )
        with pytest.raises(Disagreement, match="8-bit grey PNG"):
            ask(service, pictures=("masks",))


class TestWhatAnAnswerMeans:
    @pytest.mark.parametrize(
        ("kind", "status", "meaning"),
        [
            ("too-large", 413, Unscorable),
            ("not-an-image-type", 415, Unscorable),
            ("unreadable-image", 422, Unscorable),
            ("invalid-value", 422, SpecError),
            ("malformed", 400, SpecError),
            ("not-found", 404, SpecError),
            ("failed", 500, Failing),
            ("too-slow", 504, Failing),
            ("not-ready", 503, Unreachable),
            ("proxy", 502, Unreachable),
        ],
    )
    def test_follows_from_its_status(self, kind: str, status: int, meaning: type[FissuraError]) -> None:
        with pytest.raises(meaning, match="a rule: a value; do this") as caught:
            ask(answering(lambda: problem(kind, status)))
        assert type(caught.value) is meaning

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("7", 7),
            ("0.5", 0.5),
            ("-3", 0),
            ("99999999", 600),
            ("nan", 1),
            ("Wed, 21 Oct 2026 07:28:00 GMT", 1),
        ],
    )
    def test_back_pressure_says_when_to_come_again(self, header: str, seconds: float) -> None:
        with pytest.raises(Busy) as caught:
            ask(answering(lambda: problem("too-many-waiting", 429, **{"Retry-After": header})))
        assert caught.value.seconds == seconds

    @pytest.mark.parametrize(
        "body", [b"", b"<html>Bad Gateway</html>", b"[1]", b'{"type": 1}', b"[" * 100_000]
    )
    def test_needs_no_document(self, body: bytes) -> None:
        with pytest.raises(Failing, match="HTTP status 500"):
            ask(answering(lambda: web.Response(status=500, body=body)))

    @pytest.mark.parametrize(
        "response",
        [
            lambda: web.Response(text="hello"),
            lambda: web.json_response({"results": []}),
            lambda: web.json_response(result(PHOTOGRAPH, threshold=None)),
        ],
    )
    def test_a_good_one_that_is_no_result_ends_the_batch(self, response: Callable[[], web.Response]) -> None:
        with pytest.raises(Disagreement):
            ask(answering(response))

    def test_a_picture_without_its_result_ends_the_batch(self) -> None:
        with pytest.raises(Disagreement):
            ask(
                answering(lambda: web.Response(body=encoded(MAP), content_type="image/png")),
                pictures=("masks",),
            )

    @pytest.mark.parametrize("change", [{"run": "other"}, {"version": 4}], ids=["run", "version"])
    def test_another_model_in_the_middle_of_a_batch_ends_it(self, change: dict[str, Any]) -> None:
        with pytest.raises(FissuraError, match="one model answers a whole batch"):
            ask(answering(lambda: web.json_response(result(PHOTOGRAPH, **change))))

    def test_an_image_that_arrived_otherwise_than_it_was_sent_is_sent_again(self) -> None:
        with pytest.raises(Unreachable, match="damaged"):
            ask(answering(lambda: web.json_response(result(PHOTOGRAPH[:-1]))))

    def test_an_endless_one_is_not_read_to_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http, "MAX_DOCUMENT_BYTES", 2**20)
        sent = 0

        async def endless(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            await request.read()
            response = web.StreamResponse()
            await response.prepare(request)
            while sent < 2**28:
                await response.write(bytes(2**16))
                sent += 2**16
            return response

        service = Service()
        service.handler = endless
        with pytest.raises(Disagreement, match="at most 1048576 bytes"):
            ask(service)
        assert sent < 2**26

    def test_none_in_time_is_nobody_s(self) -> None:
        async def never(request: web.Request) -> web.StreamResponse:
            await request.read()
            await asyncio.Event().wait()
            raise AssertionError

        service = Service()
        service.handler = never
        with pytest.raises(Unreachable, match="nobody answers"):
            ask(service, timeouts=ClientTimeouts(answer=0.2))

    def test_a_connection_that_breaks_is_nobody_s(self) -> None:
        async def broken(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

        service = Service()
        service.handler = broken
        with pytest.raises(Unreachable, match="nobody answers"):
            ask(service)


class TestTheToken:
    def test_is_sent_with_every_request(self) -> None:
        service = Service()
        service.token = TOKEN
        ask(service, token=TOKEN)
        assert [request.headers["Authorization"] for request in service.asked] == [f"Bearer {TOKEN}"] * 2

    @pytest.mark.parametrize("token", [None, "another-one-0123456789"])
    def test_that_is_missing_or_wrong_is_the_user_s_mistake(self, token: str | None) -> None:
        service = Service()
        service.token = TOKEN
        with pytest.raises(SpecError, match="--token-file, or in FISSURA_TOKEN") as caught:
            ask(service, token=token)
        assert token is None or token not in str(caught.value)

    def test_follows_no_redirection(self) -> None:
        elsewhere = Service()

        async def both() -> None:
            async with running(elsewhere) as other:
                service = answering(
                    lambda: web.Response(status=307, headers={"Location": f"{other}/v1/segment"})
                )
                async with running(service) as url, open_endpoint(url, token=TOKEN) as endpoint:
                    await endpoint.scorer(mm_per_pixel=None, pictures=()).score("a.png", PHOTOGRAPH)

        with pytest.raises(SpecError, match="answers from elsewhere"):
            asyncio.run(both())
        assert elsewhere.asked == []

    def test_is_shown_nowhere(self, caplog: pytest.LogCaptureFixture) -> None:
        async def shown() -> str:
            async with running(Service()) as url, open_endpoint(url, token=TOKEN) as endpoint:
                scorer = endpoint.scorer(mm_per_pixel=None, pictures=())
                await scorer.score("a.png", PHOTOGRAPH)
                return f"{endpoint!r} {scorer!r}"

        with caplog.at_level(logging.DEBUG):
            assert TOKEN not in asyncio.run(shown())
        assert TOKEN not in caplog.text


class TestOpening:
    def test_takes_the_default_model_or_the_one_that_is_named(self) -> None:
        async def cards() -> list[str]:
            async with (
                running(Service()) as url,
                open_endpoint(url) as first,
                open_endpoint(f"{url}/", model="walls") as second,
            ):
                return [first.card.name, second.card.name]

        assert asyncio.run(cards()) == ["cracks", "walls"]

    def test_an_unknown_model_is_refused_with_those_that_there_are(self) -> None:
        with pytest.raises(
            SpecError, match=r"`wall`; did you mean `walls`\?; hosted: cracks \(segmentation\)"
        ):
            ask(Service(), model="wall")

    @pytest.mark.parametrize(
        "models", [[], {"default": "x"}, {"default": "x", "models": [{"name": "x"}]}, "hello"]
    )
    def test_another_service_is_told_apart(self, models: Any) -> None:
        service = Service()
        service.models = models
        with pytest.raises(Disagreement, match="no service of this project"):
            ask(service)

    def test_an_address_of_something_else_is_told_with_a_remedy(self) -> None:
        class Else(Service):
            async def answer(self, request: web.Request) -> web.StreamResponse:
                return web.Response(status=404)

        with pytest.raises(SpecError, match="404; mend --endpoint"):
            ask(Else())

    def test_nobody_there_is_no_mistake_and_says_how_to_start(self) -> None:
        async def nobody() -> None:
            async with running(Service()) as url:
                pass
            async with open_endpoint(url):
                pass

        with pytest.raises(FissuraError, match="fissura serve") as caught:
            asyncio.run(nobody())
        assert not isinstance(caught.value, SpecError)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:8000",
            "ftp://x",
            "http://",
            "http://x:99999",
            "http://x/?a=1",
            "http://x/#a",
            "http://[x",
        ],
    )
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        async def opened() -> None:
            async with open_endpoint(url):
                pass

        with pytest.raises(SpecError, match="--endpoint"):
            asyncio.run(opened())

    def test_an_address_with_a_password_is_refused_and_not_repeated(self) -> None:
        async def opened() -> None:
            async with open_endpoint("http://me:hunter2@x"):
                pass

        with pytest.raises(SpecError) as caught:
            asyncio.run(opened())
        assert "hunter2" not in str(caught.value)


def test_a_map_without_a_threshold_is_refused_and_never_all_crack() -> None:
    assert threshold_of_map(0.0) == 0.0
    with pytest.raises(Disagreement, match="a map has a threshold, and this one comes without"):
        threshold_of_map(None)
