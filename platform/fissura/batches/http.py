"""The scorer behind an HTTP endpoint: the service's contract from the client's side.

One request per image; it asks for the map, and the client draws the pictures from it.
"""

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import BaseModel, ValidationError

from fissura.batches.pictures import Kind, draw
from fissura.batches.refusals import refuse
from fissura.batches.scorer import (
    Busy,
    Disagreement,
    ModelCard,
    Result,
    Scored,
    Unreachable,
    Unscorable,
    threshold_of_map,
)
from fissura.core.errors import DataError, FissuraError, SpecError
from fissura.core.spec import Spec, describe
from fissura.core.tasks import task_named
from fissura.core.text import nearest
from fissura.data.images import MAX_PIXELS

RESULT_HEADER = "Fissura-Result"
MAX_HEADER_BYTES = 64 * 2**10
MAX_DOCUMENT_BYTES = 16 * 2**20
MAX_PICTURE_BYTES = 2 * MAX_PIXELS
LARGE_BYTES = 2**20  # a larger body is sent once the service accepts its size (100-continue)


class ClientTimeouts(Spec):
    """Timeouts of the client in seconds: of a connection, and of the next bytes of a response."""

    connect: float = 10.0
    answer: float = 330.0


class HostedCard(ModelCard):
    """A service's card of a model that it hosts."""

    name: str
    version: int


class _Models(BaseModel):
    default: str
    models: tuple[HostedCard, ...]


@dataclass(frozen=True)
class Endpoint:
    """A service and one of its models; see `open_endpoint`."""

    url: str
    card: HostedCard
    _session: aiohttp.ClientSession = field(repr=False)

    def scorer(self, *, mm_per_pixel: float | None, pictures: tuple[Kind, ...]) -> "HttpScorer":
        """The scorer of the model; the scale and the pictures are a segmentation's."""
        return HttpScorer(self, mm_per_pixel, pictures)


@asynccontextmanager
async def open_endpoint(
    url: str,
    *,
    model: str | None = None,
    token: str | None = None,
    concurrency: int = 8,
    timeouts: ClientTimeouts | None = None,
) -> AsyncIterator[Endpoint]:
    """The service at `url`, and the model of this name, or its default one.

    Raises:
        SpecError: the URL is invalid, the model is unknown, or the token is refused.
        FissuraError: no service answers there, or another program does.
    """
    url, chosen_timeouts = service_address(url), timeouts or ClientTimeouts()
    timeout = aiohttp.ClientTimeout(
        total=None, connect=None, sock_connect=chosen_timeouts.connect, sock_read=chosen_timeouts.answer
    )
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=timeout,
        max_field_size=MAX_HEADER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        try:
            document, _ = await _request(session, "GET", f"{url}/v1/models", limit=MAX_DOCUMENT_BYTES)
        except (Busy, Unreachable) as error:
            raise FissuraError(f"{error}; start it (`fissura serve`), or mend --endpoint") from None
        yield Endpoint(url, _chosen(url, document, model), session)


@dataclass(frozen=True)
class HttpScorer:
    """Scores by one request an image; see `Scorer`."""

    endpoint: Endpoint
    mm_per_pixel: float | None
    pictures: tuple[Kind, ...]

    async def score(self, name: str, photograph: bytes) -> Scored:
        """The result for the bytes of an image file, and its pictures."""
        card, query = self.endpoint.card, {"model": self.endpoint.card.name}
        task = task_named(card.task)
        if task.batch.has_maps:
            query["answer"] = "probability" if self.pictures else "json"
            if self.mm_per_pixel is not None:
                query["mm_per_pixel"] = repr(self.mm_per_pixel)
        address = f"{self.endpoint.url}/v1/{task.address}"
        body, headers = await _request(
            self.endpoint._session,
            "POST",
            address,
            limit=MAX_PICTURE_BYTES if self.pictures else MAX_DOCUMENT_BYTES,
            query=query,
            photograph=photograph,
        )
        text = headers.get(RESULT_HEADER, "") if self.pictures else body
        result = Result.of(_json(text, address))
        self._check(result, photograph)
        if not self.pictures:
            return Scored(result)
        return await asyncio.to_thread(self._drawn, result, photograph, body)

    def _check(self, result: Result, photograph: bytes) -> None:
        card = self.endpoint.card
        if (result.run, result.version, result.task) != (card.run, card.version, card.task):
            raise FissuraError(
                f"{self.endpoint.url}: one model answers a whole batch: `{card.name}` was version"
                f" {card.version} (run {card.run}), and is version {result.version} (run {result.run}) now;"
                " bring the former back (`fissura rollout --back`) and go on, or begin another --out"
            )
        if result.image.sha256 != hashlib.sha256(photograph).hexdigest():
            raise Unreachable(f"{self.endpoint.url}: the image arrived damaged")

    def _drawn(self, result: Result, photograph: bytes, body: bytes) -> Scored:
        probability = _map(body, size=(result.image.height, result.image.width))
        threshold = threshold_of_map(result.threshold)
        batch = task_named(result.task).batch
        result = batch.with_map(result, probability, mm_per_pixel=self.mm_per_pixel)
        pictures: dict[Kind, bytes] = {"probabilities": body} if "probabilities" in self.pictures else {}
        try:
            pictures |= draw(photograph, probability, threshold=threshold, kinds=self.pictures)
        except DataError as error:
            raise Unscorable(str(error)) from None
        return Scored(result, pictures)


async def _request(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    limit: int,
    query: Mapping[str, str] | None = None,
    photograph: bytes | None = None,
) -> tuple[bytes, Mapping[str, str]]:
    """The body (at most `limit` bytes) and headers of a successful response; raises any other one."""
    try:
        async with session.request(
            method,
            url,
            params=query,
            data=None if photograph is None else io.BytesIO(photograph),  # sent piece by piece
            headers={} if photograph is None else {"Content-Type": "application/octet-stream"},
            # the service's response to an oversized body would be lost with the connection
            expect100=photograph is not None and len(photograph) > LARGE_BYTES,
            # a redirect must not receive the token
            allow_redirects=False,
        ) as response:
            succeeded = response.status == HTTPStatus.OK
            body = await _bounded(response, limit if succeeded else MAX_DOCUMENT_BYTES, url)
            if not succeeded:
                refuse(url, response.status, body, response.headers)
            return body, response.headers
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unreachable(f"{url}: nobody answers ({reason})") from None


async def _bounded(response: aiohttp.ClientResponse, limit: int, url: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        body += chunk
        if len(body) > limit:
            response.close()
            raise Disagreement(f"{url}: an answer has at most {limit} bytes: this one has more")
    return bytes(body)


def service_address(url: str) -> str:
    """The address of a service, without a slash at its end.

    Raises:
        SpecError: it is none, or holds a password.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise SpecError(
            f"--endpoint {url}: a service's address is http://HOST:PORT, with a path at most; mend it"
        )
    if parts.username is not None or parts.password is not None:
        raise SpecError("--endpoint: an address holds no password; give a token by --token-file")
    return url.rstrip("/")


def _chosen(url: str, document: bytes, model: str | None) -> HostedCard:
    try:
        models = _Models.model_validate(_json(document, url))
    except ValidationError as error:
        raise Disagreement(
            f"{url}: no service of this project: {describe(error)[0]}; mend --endpoint"
        ) from None
    cards = {card.name: card for card in models.models}
    name = model or models.default
    if name not in cards:
        known = ", ".join(f"{card.name} ({card.task})" for card in models.models) or "none"
        raise SpecError(f"{url}: no model is named `{name}`{nearest(name, cards)}; hosted: {known}")
    return cards[name]


def _json(text: str | bytes, url: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Disagreement(f"{url}: no service of this project answers there; mend --endpoint") from None


def _map(body: bytes, *, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """The map in a response, which must have its image's size."""
    try:
        with Image.open(io.BytesIO(body), formats=["PNG"]) as picture:
            if (picture.height, picture.width) == size and picture.mode == "L":
                return np.array(picture)
    except Exception as error:  # Pillow raises almost anything on a broken file
        raise Unreachable(f"a map arrived damaged ({type(error).__name__})") from None
    raise Disagreement(
        f"a map is an 8-bit grey PNG as large as its image ({size[1]}x{size[0]}): this one is none"
    )
