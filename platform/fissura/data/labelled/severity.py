"""Squares that hold a crack, by its largest width: severity computed from masks."""

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
    """The width of the crack at each of its pixels, in pixels; 0 in the background. `mask` holds 0 and 1.

    On the centreline it is the crack's (see `centrelines`); towards the edges it falls with the distance to
    the background. The image is surrounded by background, so that a crack which the border cuts lengthwise
    has its visible width. Where most of a large image is crack it is twice the distance to the background
    minus one pixel.
    """
    import cv2

    from fissura.data.centrelines import centrelines  # numba takes long to import

    inside = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    lines = centrelines(mask, level=0.5)
    if lines is None or not len(lines.rows):
        return np.asarray(np.maximum(2 * inside - 1, 0), dtype=np.float32)
    background = np.ones_like(mask)
    background[lines.rows, lines.columns] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        background, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    share = np.zeros(nearest.max() + 1, np.float32)
    share[nearest[lines.rows, lines.columns]] = lines.width / inside[lines.rows, lines.columns]
    width = np.zeros_like(share)
    width[nearest[lines.rows, lines.columns]] = lines.width
    return np.asarray(np.minimum(inside * share[nearest], width[nearest]), dtype=np.float32)


class Severity(CutSquares):
    """A square with at least `crack_share` crack pixels, classified by its largest crack width (see
    `crack_width`) times `mm_per_pixel`: n ascending `limits_mm` separate n + 1 classes, and a width on a
    limit belongs to the higher one. A square is skipped if the `margin` around it raises its class: then it
    holds only the flank of a wider crack.
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
        # slightly lower, so that rounding does not put 3 pixels of 0.1 mm below a limit of 0.3 mm
        return np.searchsorted(np.array(self.limits_mm) * (1 - 1e-6), width, side="right")

    @property
    def remedy(self) -> str:
        scale = _number(self.mm_per_pixel)
        return f"set other limits (now {_listed(self.limits_mm)} mm) or mend the scale ({scale} mm a pixel)"


def _listed(limits: tuple[float, ...]) -> str:
    return ",".join(map(_number, limits))


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")
