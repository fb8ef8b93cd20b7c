"""Evaluation protocols: a score without its protocol does not exist. The union `AnyProtocol` lists them."""

import difflib
import re
from typing import Annotated, get_args

from pydantic import Field

from fissura.core.errors import SpecError
from fissura.metrics.counts import Counts, crack_pixels, pool
from fissura.metrics.curves import ThresholdSweep, average_precision, sweep
from fissura.metrics.flexible import Flexible
from fissura.metrics.pixel import Overlap, Pixel
from fissura.metrics.protocol import Protocol
from fissura.metrics.scores import Rates, Scores, best_threshold, level_of, mean, rates
from fissura.metrics.tolerant import Tolerant

AnyProtocol = Annotated[Pixel | Tolerant | Overlap | Flexible, Field(discriminator="kind")]

_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,20})?(e-?\d{1,3})?", re.ASCII)


def parse_protocol(text: str) -> Pixel | Tolerant | Overlap | Flexible:
    """The protocol that `text` names, such as `pixel` or `tolerant:2`: the inverse of `str(protocol)`.

    A distance left out is the protocol's own default.

    Raises:
        SpecError: an unknown kind, a distance too many, or one out of range.
    """
    kinds: dict[str, type[Pixel | Tolerant | Overlap | Flexible]] = {
        protocol.model_fields["kind"].default: protocol for protocol in get_args(get_args(AnyProtocol)[0])
    }
    kind, *values = text.split(":")
    if kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, n=1)
        known = ", ".join(f"`{one()}`" for one in kinds.values())
        raise SpecError(
            f"protocol `{text}`: no kind is named `{kind}`; "
            + (f"did you mean `{near[0]}`? " if near else "")
            + f"known: {known}"
        )
    names = [name for name in kinds[kind].model_fields if name != "kind"]
    if len(values) > len(names):
        form = ":".join([kind, *(name.upper() for name in names)])
        raise SpecError(
            f"protocol `{text}`: `{kind}` is written `{form}`; leave out `:{':'.join(values[len(names) :])}`"
        )
    wrong = [value for value in values if not _NUMBER.fullmatch(value)]
    if wrong:
        raise SpecError(
            *(f"protocol `{text}`: `{value}` is not a number; write one such as 2" for value in wrong)
        )
    numbers = [int(value) if value.lstrip("-").isdigit() else float(value) for value in values]
    plain = {"kind": kind, **dict(zip(names, numbers, strict=False))}
    return kinds[kind].load(plain, source=f"protocol `{text}`")


__all__ = [
    "AnyProtocol",
    "Counts",
    "Flexible",
    "Overlap",
    "Pixel",
    "Protocol",
    "Rates",
    "Scores",
    "ThresholdSweep",
    "Tolerant",
    "average_precision",
    "best_threshold",
    "crack_pixels",
    "level_of",
    "mean",
    "parse_protocol",
    "pool",
    "rates",
    "sweep",
]
