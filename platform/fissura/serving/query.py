"""The query of a request: the form of the answer, the scale and the threshold."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from pydantic import Field, ValidationError

from fissura.core.spec import Spec, describe
from fissura.serving.problems import Problem, Refused

Form = Literal["json", "mask", "probability", "overlay"]
Parameter = Literal["answer", "mm_per_pixel", "threshold"]
"""Query parameters beside the model's name; each task takes some of them, or none."""
MEDIA: dict[Form, str] = {
    "json": "application/json",
    "mask": "image/png",
    "probability": "image/png",
    "overlay": "image/jpeg",
}
CARRIERS = {"application/json": ("application/zip", "application/problem+json")}
"""Media types in `Accept` that also stand for JSON: a client that names only these receives JSON."""
MOST_RANGES = 32


class ImageQuery(Spec):
    """The form of the answer, the scale for lengths, and a threshold that overrides the model's."""

    form: Form = "json"
    mm_per_pixel: float | None = Field(None, gt=0, lt=1e6)
    threshold: float | None = Field(None, ge=0, le=1)


def unsupported(query: ImageQuery, *, parameters: Sequence[Parameter]) -> list[str]:
    """The names of the parameters that the query sets beyond these."""
    default = ImageQuery()
    fields: dict[Parameter, str] = {
        "answer": "form",
        "mm_per_pixel": "mm_per_pixel",
        "threshold": "threshold",
    }
    return [
        name
        for name, field in fields.items()
        if name not in parameters and getattr(query, field) != getattr(default, field)
    ]


def parse_query(given: Mapping[str, str | float | None], accept: str | None) -> ImageQuery:
    """The query of a request; `answer` names the form, or else the `Accept` header.

    Raises:
        Refused: there is no `answer` and `Accept` allows no form, or a value breaks a rule.
    """
    form = given.get("answer") or _preferred(accept)
    values = {name: given.get(name) for name in ("mm_per_pixel", "threshold")}
    try:
        query = ImageQuery.model_validate({"form": form, **values})
    except ValidationError as error:
        problem = describe(error, spec=ImageQuery, names={"form": "answer"})[0]
        raise Refused(
            Problem("invalid-value", "a query keeps its types and ranges", problem, "mend the query")
        ) from None
    return query


def _preferred(accept: str | None) -> Form:
    """The form that an `Accept` header prefers (RFC 9110, section 12.5.1), the first of equals; by default
    JSON."""
    ranges: dict[str, tuple[float, int]] = {}
    for index, part in enumerate((accept or "*/*").split(",")[:MOST_RANGES]):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
        ranges.setdefault(media, (_quality(quality), -index))

    def preference(form: Form) -> tuple[float, int]:
        media = MEDIA[form]
        names = (media, *CARRIERS.get(media, ()), f"{media.partition('/')[0]}/*", "*/*")
        return next((ranges[name] for name in names if name in ranges), (0.0, 0))

    best: Form = max(get_args(Form), key=preference)
    if preference(best)[0] == 0:
        raise Refused(
            Problem(
                "not-acceptable",
                f"an answer is one of {', '.join(sorted(set(MEDIA.values())))}",
                f"`Accept` is {(accept or '')[:100]!r}",
                "send another Accept header, or none",
            )
        )
    return best


def _quality(text: str) -> float:
    """0..1; anything but a number makes its range unacceptable."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
