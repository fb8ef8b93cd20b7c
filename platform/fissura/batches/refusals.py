"""What a service's refusal means: the image's own fault, a wait, or the end of the batch."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import NoReturn

from fissura.batches.scorer import Busy, Failing, Unreachable, Unscorable
from fissura.core.errors import SpecError

MAX_WAIT_SECONDS = 600.0
_OWN = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
_NOBODY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}


def refuse(url: str, status: int, body: bytes, headers: Mapping[str, str]) -> NoReturn:
    """Raises what an answer of this status means for an image."""
    kind, problem = read_problem(body, status)
    text = f"{url}: {problem}"
    if status in _OWN and kind != "invalid-value":
        raise Unscorable(problem)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise Busy(text, seconds=_seconds(headers.get("Retry-After")))
    if status in _NOBODY:
        raise Unreachable(text)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Failing(problem)
    if 300 <= status < 400:
        raise SpecError(f"{url}: answers from elsewhere ({status}); give that address by --endpoint")
    if status == HTTPStatus.UNAUTHORIZED:
        text += "; give the service's token by --token-file, or in FISSURA_TOKEN"
    raise SpecError(text if kind else f"{text}; mend --endpoint")


def read_problem(body: bytes, status: int) -> tuple[str, str]:
    """The kind of an application/problem+json document, and its text in one line; "" and the status for any
    other answer."""
    try:
        document = json.loads(body)
        kind = str(document["type"]).removeprefix("urn:fissura:problem:")
        parts = (document[key] for key in ("title", "detail"))
        remedy = document.get("remedy")
        text = ": ".join(map(str, parts)) + (f"; {remedy}" if remedy else "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", f"HTTP status {status}"
    return kind, " ".join(text.split())[:1000]


def _seconds(text: str | None) -> float:
    """The seconds of a Retry-After header; of anything but a number, 1."""
    try:
        seconds = float(text or "")
    except ValueError:
        return 1.0
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS) if math.isfinite(seconds) else 1.0
