"""Squares that hold a crack, by its largest width: severity from masks, where nobody labelled it."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field, field_validator

from fissura.data.dataset import DatasetInfo
from fissura.data.labelled.grid import NEITHER, Grid, Labels, Mask
from fissura.data.labelled.squares import CutSquares

Limit = Annotated[float, Field(gt=0, lt=1e6)]


def crack_width(mask: Mask) -> Float32[np.ndarray, "h w"]:
    """The width of the crack about each of its pixels, in pixels; 0 in the background. `mask` holds 0 and 1.

    width = 2 D - 1, where D is the Euclidean distance from the pixel's centre to the nearest centre of a
    background pixel. D ends half a pixel beyond the crack's edge, hence the 1: a line one pixel wide has
    D = 1 and width 1. The largest value along a crack is the diameter of the largest disc in it; it is exact
    for bands of an odd number of rows, and 1 too little for an even one, whose middle is on no pixel. The
    image ends in background, so a crack that the border cuts lengthwise has the width that is seen.
    """
    import cv2

    inside = np.asarray(cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    return np.asarray(np.maximum(2 * inside[1:-1, 1:-1] - 1, 0), dtype=np.float32)


class Severity(CutSquares):
    """A square with at least `crack_share` crack pixels, classed by its largest crack width (see
    `crack_width`) times `mm_per_pixel`: n rising `limits_mm` part n + 1 classes, and a width on a limit is of
    the higher one. A square is passed over where the `margin` around it raises its class, since then it holds
    only the flank of a wider crack.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Squares with a crack, by its largest width, cut from a data set with masks",
        licence="that of the data set they are cut from",
        citation="limit 0.1 mm between minor and obvious: GB 50204-2015",
        obtain="severity:MM_PER_PIXEL[:LIMITS_MM]:KIND:ROOT, with the kind and the root of a data set with "
        "masks",
        layout="that of the data set they are cut from",
        counts={},
    )
    kind: Literal["severity"] = "severity"
    mm_per_pixel: float = Field(gt=0, lt=1e6)
    limits_mm: Annotated[tuple[Limit, ...], Field(min_length=1, max_length=20)] = (0.1,)

    @field_validator("limits_mm")
    @classmethod
    def _rising(cls, limits: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(limits)):
            raise ValueError(f"limits rise: {_listed(limits)} do not; sort them and name each once")
        return limits

    @property
    def label_text(self) -> str:
        scale = f"{_number(self.mm_per_pixel)}:{_listed(self.limits_mm)}"
        return f"{self.kind}:{scale}:{self.source_text}"

    def classes(self) -> tuple[str, ...]:
        edges = [_number(limit) for limit in self.limits_mm]
        between = [f"{low}-{high}mm" for low, high in pairwise(edges)]
        return (f"<{edges[0]}mm", *between, f">={edges[-1]}mm")

    def label(self, mask: Mask, grid: Grid) -> Labels:
        width = crack_width(mask) * np.float32(self.mm_per_pixel)
        own, around = self._level(grid.largest(width)), self._level(grid.largest(width, margin=self.margin))
        crack = grid.count(mask) >= self.crack_share * self.size**2
        return np.where(crack & (own == around), own, NEITHER)

    def _level(self, width: Float32[np.ndarray, "rows columns"]) -> Labels:
        # a hair lower, so that 3 pixels of 0.1 mm are not rounded to less than a limit of 0.3 mm
        return np.searchsorted(np.array(self.limits_mm) * (1 - 1e-6), width, side="right")

    @property
    def remedy(self) -> str:
        scale = _number(self.mm_per_pixel)
        return f"set other limits (now {_listed(self.limits_mm)} mm) or mend the scale ({scale} mm a pixel)"


def _listed(limits: tuple[float, ...]) -> str:
    return ",".join(map(_number, limits))


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")
