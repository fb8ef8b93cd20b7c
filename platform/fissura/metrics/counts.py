"""The four counts that every score follows from, at all 256 levels of an 8-bit probability map at once."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

LEVELS = 256


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixel counts, each int64 [256]: element k is of the prediction "probability map >= k".

    precision = true_positive / (true_positive + false_positive) and recall = found / (found + missed). With a
    tolerance `true_positive` and `found` differ, for one counts predicted pixels and the other labelled ones.
    """

    true_positive: Int64[np.ndarray, "256"]
    false_positive: Int64[np.ndarray, "256"]
    found: Int64[np.ndarray, "256"]
    missed: Int64[np.ndarray, "256"]


def pool(counts: Iterable[Counts]) -> Counts:
    """The sums over images: what a micro score and a data-set curve are computed from. At least one image."""
    true_positive, false_positive, found, missed = np.sum(
        [(one.true_positive, one.false_positive, one.found, one.missed) for one in counts], axis=0
    )
    return Counts(true_positive, false_positive, found, missed)


def at_or_above(values: UInt8[np.ndarray, "..."]) -> Int64[np.ndarray, "256"]:
    """How many of `values` are >= k, for each k = 0..255: one histogram, summed from the top."""
    if (
        values.size < 10_000
    ):  # bincount widens each value to 64 bits, which is dearer than a detour only if there are many
        histogram = np.bincount(values.ravel(), minlength=LEVELS)
    else:
        histogram = np.array(Image.fromarray(values.reshape(1, -1)).histogram(), dtype=np.int64)
    return histogram[::-1].cumsum()[::-1]


def crack_pixels(mask: UInt8[np.ndarray, "h w"], valid: UInt8[np.ndarray, "h w"] | None = None) -> int:
    """The number of labelled pixels (not 0) among the valid ones (not 0)."""
    return int(np.count_nonzero(mask if valid is None else (mask != 0) & (valid != 0)))
