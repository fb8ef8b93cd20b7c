"""Decodes samples and resizes them to the working size, some at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError
from fissura.data.content import Source
from fissura.data.lost import LostCracks, lost_at, lost_by_area
from fissura.data.mask_rules import InspectedMask
from fissura.data.resize import AnyResize, MaskRule
from fissura.data.turns import doubtful_turn

WORKERS = 8

Patch = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]


class Decoded(NamedTuple):
    """A sample at the working size, what nearest neighbour loses of its cracks, what its rule loses, and
    whether its mask may be turned wrongly.
    """

    planes: Patch
    nearest: LostCracks
    lost: LostCracks
    doubtful_turn: bool


def decode_all(
    sources: list[Source],
    resize: AnyResize,
    rules: dict[str, MaskRule],
    inspected: list[InspectedMask | None],
    pool: ThreadPoolExecutor,
) -> Iterator[Decoded | list[str]]:
    """The result of `_decode` for each sample, in order, decoded a few ahead."""
    left = zip(sources, inspected, strict=True)

    def ahead(count: int) -> Iterator[Future[Decoded | list[str]]]:
        return (
            pool.submit(_decode, source, resize, rules[source.label], mask)
            for source, mask in islice(left, count)
        )

    waiting = deque(ahead(WORKERS + 2))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(ahead(1))


def _decode(
    source: Source, resize: AnyResize, rule: MaskRule, inspected: InspectedMask | None
) -> Decoded | list[str]:
    """A sample at the working size, or its problems; `inspected`: its mask, if it was inspected."""
    try:
        image, mask, valid = source.read(mask=None if inspected is None else inspected.mask)
    except DataError as error:
        return list(error.problems)
    sample = source.sample
    if mask.shape != image.shape[:2]:
        return [f"{sample.mask}: a mask must have the size of its image {sample.image}"]
    valid = np.ones_like(mask) if valid is None else valid
    if valid.shape != mask.shape or max(mask.max(), valid.max()) > 1:
        return [f"{sample.mask}: masks must hold 0 and 1 in the size of the image {sample.image}"]
    planes = resize.image(image), resize.mask(mask, rule=rule), resize.mask(valid, rule="nearest")
    nearest = lost_at(resize, mask) if inspected is None else inspected.lost
    lost = nearest if rule == "nearest" else lost_by_area(resize, mask, nearest=nearest, small=planes[1])
    return Decoded(planes, nearest, lost, doubtful_turn(sample))
