"""Evaluation protocols: a score without its protocol does not exist. The union `AnyProtocol` lists them."""

import re
from typing import Annotated, TypeAlias, get_args

from pydantic import Field

from fissura.core.errors import SpecError
from fissura.core.text import nearest
from fissura.metrics.counts import Counts, crack_pixels, pool
from fissura.metrics.curves import ThresholdSweep, average_precision, sweep
from fissura.metrics.flexible import Flexible
from fissura.metrics.pixel import Overlap, Pixel
from fissura.metrics.protocol import Protocol
from fissura.metrics.scores import Rates, Scores, best_threshold, level_of, mean, rates
from fissura.metrics.tolerant import Tolerant

OneProtocol: TypeAlias = Pixel | Tolerant | Overlap | Flexible
AnyProtocol = Annotated[OneProtocol, Field(discriminator="kind")]

_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,20})?(e-?\d{1,3})?", re.ASCII)


def parse_protocol(text: str) -> OneProtocol:
    """The protocol that `text` names, such as `pixel` or `tolerant:2`: the inverse of `str(protocol)`.

    A distance left out is the protocol's own default.

    Raises:
        SpecError: an unknown kind, a distance too many, or one out of range.
    """
    kinds: dict[str, type[OneProtocol]] = {
        protocol.model_fields["kind"].default: protocol for protocol in get_args(OneProtocol)
    }
    kind, *values = text.split(":")
    if kind not in kinds:
        known = ", ".join(f"`{one()}`" for one in kinds.values())
        raise SpecError(f"protocol `{text}`: no kind is named `{kind}`{nearest(kind, kinds)}; known: {known}")
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
