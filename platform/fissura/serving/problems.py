"""Problem details of a request (RFC 9457): the rule, the value, the remedy."""

from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Literal

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"

Kind = Literal[
    "malformed",
    "no-token",
    "cross-site",
    "outside-the-roots",
    "not-found",
    "wrong-method",
    "not-acceptable",
    "stood-still",
    "conflict",
    "too-large",
    "address-too-long",
    "head-too-large",
    "not-an-image-type",
    "unreadable-image",
    "invalid-value",
    "too-many-waiting",
    "failed",
    "not-ready",
    "too-slow",
]

STATUS: dict[Kind, HTTPStatus] = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "no-token": HTTPStatus.UNAUTHORIZED,
    "cross-site": HTTPStatus.FORBIDDEN,
    "outside-the-roots": HTTPStatus.FORBIDDEN,
    "not-found": HTTPStatus.NOT_FOUND,
    "wrong-method": HTTPStatus.METHOD_NOT_ALLOWED,
    "not-acceptable": HTTPStatus.NOT_ACCEPTABLE,
    "stood-still": HTTPStatus.REQUEST_TIMEOUT,
    "conflict": HTTPStatus.CONFLICT,
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "address-too-long": HTTPStatus.REQUEST_URI_TOO_LONG,
    "head-too-large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "not-an-image-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "unreadable-image": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid-value": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too-many-waiting": HTTPStatus.TOO_MANY_REQUESTS,
    "failed": HTTPStatus.INTERNAL_SERVER_ERROR,
    "not-ready": HTTPStatus.SERVICE_UNAVAILABLE,
    "too-slow": HTTPStatus.GATEWAY_TIMEOUT,
}


@dataclass(frozen=True)
class Problem:
    """One problem: `title` is the rule, `detail` the value, `remedy` what to do; `retry_after` is in seconds,
    if a retry helps.
    """

    kind: Kind
    title: str
    detail: str
    remedy: str
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(STATUS[self.kind])

    def plain(self) -> dict[str, Any]:
        """The problem's JSON document."""
        named = {"type": f"urn:fissura:problem:{self.kind}", "status": self.status}
        own = {name: value for name, value in asdict(self).items() if name != "kind" and value is not None}
        return {**named, **own}


class Refused(Exception):
    """A request, or one of its images, is refused."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title}: {problem.detail}; {problem.remedy}")
        self.problem = problem

    def __reduce__(self) -> "tuple[type[Refused], tuple[Problem]]":
        return Refused, (self.problem,)


def failed(reason: str) -> Problem:
    """The problem of an error of the service; only its log has the cause."""
    return Problem("failed", "a request is answered", reason, "try again; the service's log says more")


def too_slow(seconds: float) -> Problem:
    """The problem of a request that timed out."""
    return Problem(
        "too-slow",
        f"a request is read and answered within {seconds:g} s",
        "this one was not",
        "send fewer or smaller images at a time",
    )


def stood_still(seconds: float) -> Problem:
    """The problem of a request whose next bytes do not arrive."""
    return Problem(
        "stood-still",
        f"a head comes within {seconds:g} s, and a body stands still no longer",
        "this one did not come",
        "send it again without a pause; --max-idle-seconds of the service sets the bound",
    )


def unreadable(line: str) -> Problem:
    """The problem of an unreadable image, from the reader's error `line`: (rule: )value; remedy."""
    rest, _, remedy = line.rpartition("; ")
    rule, _, value = rest.rpartition(": ")
    return Problem("unreadable-image", rule or "an image can be read", value, remedy)


def problem_response(problem: Problem) -> JSONResponse:
    """The response with a problem."""
    headers = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.plain(), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
