"""What a request asks of a model: which answer, and on which terms."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from pydantic import Field, ValidationError

from fissura.core.spec import Spec, describe
from fissura.serving.problems import Problem, Refused

Form = Literal["json", "mask", "probability", "overlay"]
Parameter = Literal["answer", "mm_per_pixel", "threshold"]
"""What a query may hold beside the model's name; each task takes some of them, or none."""
MEDIA: dict[Form, str] = {
    "json": "application/json",
    "mask": "image/png",
    "probability": "image/png",
    "overlay": "image/jpeg",
}
CARRIERS = {"application/json": ("application/zip", "application/problem+json")}
"""What a client may name that takes the other documents alone."""
MOST_RANGES = 32


class Asked(Spec):
    """One question: the form of the answer, the scale for lengths, another threshold than the model's own."""

    form: Form = "json"
    mm_per_pixel: float | None = Field(None, gt=0, lt=1e6)
    threshold: float | None = Field(None, ge=0, le=1)


def needless(asked: Asked, *, parameters: Sequence[Parameter]) -> list[str]:
    """What is asked beyond these parameters, by name."""
    default = Asked()
    fields: dict[Parameter, str] = {
        "answer": "form",
        "mm_per_pixel": "mm_per_pixel",
        "threshold": "threshold",
    }
    return [
        name
        for name, field in fields.items()
        if name not in parameters and getattr(asked, field) != getattr(default, field)
    ]


def asked_of(query: Mapping[str, str | float | None], accept: str | None) -> Asked:
    """The question of a request: `answer` names the form, or else the `Accept` header does.

    Raises:
        Refused: there is no `answer`, and `Accept` allows none of the forms; a value breaks a rule.
    """
    form = query.get("answer") or _preferred(accept)
    values = {name: query.get(name) for name in ("mm_per_pixel", "threshold")}
    try:
        asked = Asked.model_validate({"form": form, **values})
    except ValidationError as error:
        problem = describe(error, spec=Asked, names={"form": "answer"})[0]
        raise Refused(
            Problem("invalid-value", "a query keeps its types and ranges", problem, "mend the query")
        ) from None
    return asked


def _preferred(accept: str | None) -> Form:
    """The form that an `Accept` header likes best (RFC 9110, section 12.5.1), of those the one that it puts
    first; JSON where it leaves the choice."""
    ranges: dict[str, tuple[float, int]] = {}
    for place, part in enumerate((accept or "*/*").split(",")[:MOST_RANGES]):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        ranges.setdefault(media, (_quality(quality), -place))

    def liking(form: Form) -> tuple[float, int]:
        media = MEDIA[form]
        names = (media, *CARRIERS.get(media, ()), f"{media.partition('/')[0]}/*", "*/*")
        return next((ranges[name] for name in names if name in ranges), (0.0, 0))

    best: Form = max(get_args(Form), key=liking)
    if liking(best)[0] == 0:
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
    """0..1; what is no number makes its range unacceptable."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
