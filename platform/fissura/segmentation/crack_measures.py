"""Measures of a crack mask for an engineer: area, length and width."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

from fissura.core.errors import DataError
from fissura.data.centrelines import Centrelines, centrelines
from fissura.metrics import level_of

Plane = UInt8[np.ndarray, "h w"]
Values = Float64[np.ndarray, " cracks"]

MOST_LISTED = 100  # cracks of an image that are listed one by one
DIGITS = 6  # significant digits of the measures


# a service of a later version may give more measures
@pydantic_dataclass(frozen=True, config=ConfigDict(extra="ignore", allow_inf_nan=False))
class MeasuredCrack:
    """Measures of one crack, in pixels and, where the scale is known, in mm.

    box: left, top, width and height of its bounding box, in pixels. length, widths: see `CrackMeasures`;
    `width_95`: the 95th percentile of the width along its length. orientation: of the axis along which its
    centreline is spread most, in degrees from the image's rows, 0 to below 180, counter-clockwise (90 is
    upright); None where it has no length. All of these are None where they would take too long to compute.
    """

    box: tuple[int, int, int, int]
    area_px: int
    length_px: float | None
    mean_width_px: float | None
    width_95_px: float | None
    largest_width_px: float | None
    orientation_degrees: float | None
    length_mm: float | None
    mean_width_mm: float | None
    width_95_mm: float | None
    largest_width_mm: float | None


@dataclass(frozen=True)
class CrackMeasures:
    """Measures of a mask, in pixels (`_px`) and, where `mm_per_pixel` is known, in mm and mm2.

    share: the crack's share of the image's pixels, 0..1. cracks: groups of crack pixels that touch, corners
    included. area: crack pixels. length: of the centrelines; None where most of a large image is crack, which
    would take minutes and mean nothing. mean_width: the mean along the centrelines; None where the length is
    None or 0 (no crack, or only specks). largest_width: the largest along them; None where there is no crack.
    No width is measured near forks, where two cracks are one wide one. `fissura.data.centrelines.centrelines`
    describes the errors. listed: the `MOST_LISTED` longest cracks, the longest first.
    """

    share: float
    cracks: int
    area_px: int
    length_px: float | None
    mean_width_px: float | None
    largest_width_px: float | None
    mm_per_pixel: float | None
    area_mm2: float | None
    length_mm: float | None
    mean_width_mm: float | None
    largest_width_mm: float | None
    listed: tuple[MeasuredCrack, ...] = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """The measures of the whole mask by name, as JSON types, to six significant digits: further ones are
        rounding errors, which differ from run to run."""
        return {name: _short(getattr(self, name)) for name in SUMMARY}

    def table(self) -> list[dict[str, Any]]:
        """The listed cracks, as JSON types: lengths, widths and angles to six significant digits."""
        return [
            {name: _short(value) for name, value in dataclasses.asdict(crack).items()}
            for crack in self.listed
        ]


def _short(value: Any) -> Any:
    if isinstance(value, tuple):
        return [*value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


SUMMARY = tuple(field.name for field in dataclasses.fields(CrackMeasures) if field.name != "listed")


def measure(mask: Bool[np.ndarray, "h w"] | Plane, *, mm_per_pixel: float | None) -> CrackMeasures:
    """Measures of the cracks in `mask`, where it is not 0.

    `mm_per_pixel` is the width of a pixel on the surface in mm, or None where it is not known.

    Raises:
        DataError: `mm_per_pixel` is not a number above 0.
    """
    return _measured(np.asarray(mask != 0, dtype=np.uint8), level=0.5, mm_per_pixel=mm_per_pixel)


def measure_map(probability: Plane, *, threshold: float, mm_per_pixel: float | None) -> CrackMeasures:
    """Measures of the cracks in a map of probabilities times 255, where it is at least `threshold` (0..1).

    Widths end where the map, linear between the centres of its pixels, crosses the threshold: they are finer
    than those of the mask. `mm_per_pixel` and errors as of `measure`.
    """
    level = min(255 * threshold, float(level_of(threshold)))
    return _measured(probability, level=level, mm_per_pixel=mm_per_pixel)


def _measured(plane: Plane, *, level: float, mm_per_pixel: float | None) -> CrackMeasures:
    import cv2

    if mm_per_pixel is not None and not (mm_per_pixel > 0 and math.isfinite(mm_per_pixel)):
        raise DataError(
            f"a scale is above 0 mm a pixel: this one is {mm_per_pixel}; give the width of a pixel on the "
            f"surface"
        )
    lines = centrelines(plane, level=level)
    mask = np.asarray(plane >= level, dtype=np.uint8)
    # labels of 16 bits take half the time
    label_type = cv2.CV_16U if cv2.countNonZero(mask) < np.iinfo(np.uint16).max else cv2.CV_32S
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=label_type)
    boxes, areas = stats[1:, :4].astype(np.int64), stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    area, length, mean, widest = int(areas.sum()), None, None, None
    if lines is None:
        by_size = np.argsort(-areas, kind="stable")
        rows: list[tuple[float | None, ...]] = [(None,) * 5] * len(by_size[:MOST_LISTED])
        widest = 2 * float(cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5).max()) - 1
    else:
        each = _measure_each(lines, labels[lines.rows, lines.columns].astype(np.int64) - 1, count - 1)
        by_size = np.lexsort((-areas, -each.length))
        rows = [each.row(crack) for crack in by_size[:MOST_LISTED]]
        length = float(each.length.sum())
        long = each.length > 0
        mean = float(np.average(each.mean[long], weights=each.length[long])) if length else None
        widest = float(each.largest.max()) if len(each.largest) else None

    def scaled(value: float | None, power: int = 1) -> float | None:
        return None if value is None or mm_per_pixel is None else value * mm_per_pixel**power

    return CrackMeasures(
        share=area / mask.size,
        cracks=count - 1,
        area_px=area,
        length_px=length,
        mean_width_px=mean,
        largest_width_px=widest,
        mm_per_pixel=mm_per_pixel,
        area_mm2=scaled(area, 2),
        length_mm=scaled(length),
        mean_width_mm=scaled(mean),
        largest_width_mm=scaled(widest),
        listed=tuple(
            MeasuredCrack(tuple(boxes[crack].tolist()), int(areas[crack]), *row, *map(scaled, row[:4]))
            for crack, row in zip(by_size, rows, strict=False)
        ),
    )


@dataclass(frozen=True)
class _CrackArrays:
    """Measures of each crack, in pixels and degrees; `orientation` is NaN where it has no length."""

    length: Values
    mean: Values
    width_95: Values
    largest: Values
    orientation: Values

    def row(self, crack: int) -> tuple[float | None, ...]:
        values = (self.length, self.mean, self.width_95, self.largest, self.orientation)
        return tuple(None if math.isnan(value[crack]) else float(value[crack]) for value in values)


def _total(crack: Int64[np.ndarray, " n"], count: int, values: Float64[np.ndarray, " n"]) -> Values:
    return np.bincount(crack, values, count)


def _measure_each(lines: Centrelines, crack: Int64[np.ndarray, " n"], count: int) -> _CrackArrays:
    """The measures of `count` cracks; `crack` is the number of the crack that each node of `lines` belongs
    to."""
    total = partial(_total, crack, count)
    length = np.maximum(total(lines.length), 0)
    # a crack wholly near forks is measured there; specks have no length to weigh by
    alone = lines.alone | (total(lines.alone)[crack] == 0)
    weight = np.where(alone, np.maximum(lines.length, 0) + 1e-9, 0)
    largest = np.zeros(count)
    np.maximum.at(largest, crack, np.where(alone, lines.width, 0))
    order = np.lexsort((lines.width, crack))
    reached = np.cumsum(weight[order])
    before = np.concatenate(([0.0], np.cumsum(total(weight))))
    below = np.searchsorted(reached, before[:-1] + 0.95 * np.diff(before))
    width_95 = lines.width[order[np.minimum(below, len(order) - 1)]] if count else np.zeros(0)
    x, y = lines.points.T * ((1,), (-1,))
    weights = total(weight)
    x, y = x - (total(weight * x) / weights)[crack], y - (total(weight * y) / weights)[crack]
    spread = total(weight * (x * x - y * y)), 2 * total(weight * x * y)
    orientation = np.degrees(np.arctan2(spread[1], spread[0]) / 2).round(9) % 180
    orientation[length == 0] = np.nan
    mean = total(weight * lines.width) / weights
    mean[length == 0] = np.nan  # a speck has no centreline
    return _CrackArrays(length, mean, np.minimum(width_95, largest), largest, orientation)
