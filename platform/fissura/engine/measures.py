"""What an engineer asks of a crack mask: how much of it there is, how long it is and how wide."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from fissura.core.errors import DataError
from fissura.data.labelled.severity import crack_width

Region = UInt8[np.ndarray, "h w"]

BOX_COST = 300  # pixels that take as long as the work that a box costs whatever its size
SMALL, SHEET = 64, 256  # sides, in pixels, of the largest box that goes on a sheet, and of a sheet
MOST_WORK = 4e9  # pixels of boxes times the width of what is in them, some ten seconds of thinning


@dataclass(frozen=True)
class CrackMeasures:
    """Measures of a mask, in pixels (`_px`) and, where `mm_per_pixel` is known, in mm and mm2.

    share: the crack's share of the image's pixels, 0..1. cracks: groups of crack pixels that touch, corners
    included. area: crack pixels. length: of the skeletons, see `skeleton_length`; None where most of a large
    image is crack, which would take minutes and mean nothing. mean_width: area / length; None where there is
    no length, or it is 0 (no crack, or specks alone). largest_width: see
    `fissura.data.labelled.severity.crack_width`; None where there is no crack.

    How they err. A skeleton ends up to half of the crack's width before the crack does. It goes in steps of
    45 degrees, so its length is right along those and up to 8 % too long between them (at 22.5 degrees), and
    the mean width is too small to the same extent. A line one pixel wide is 1/sqrt(2) pixels wide by its mean
    where it is diagonal. The length of a blob means nothing. The largest width is about 1 pixel off at most.
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

    def plain(self) -> dict[str, Any]:
        """The measures by name, as JSON types."""
        return dataclasses.asdict(self)


def measure(mask: Bool[np.ndarray, "h w"] | Region, *, mm_per_pixel: float | None) -> CrackMeasures:
    """Measures of the cracks in `mask`, where it is not 0.

    `mm_per_pixel` is the width of a pixel on the surface in mm, or None where it is not known. The time goes
    with the box about a crack times its width: seconds for the cracks of 36 megapixels.

    Raises:
        DataError: `mm_per_pixel` is not a number above 0.
    """
    if mm_per_pixel is not None and not (mm_per_pixel > 0 and math.isfinite(mm_per_pixel)):
        raise DataError(
            f"a scale is above 0 mm a pixel: this one is {mm_per_pixel}; give the width of a pixel on the "
            f"surface"
        )
    cracks, regions = _regions(np.asarray(mask != 0, dtype=np.uint8))
    area, widest, work = int(np.count_nonzero(mask)), 0.0, 0.0
    length: float | None = 0.0
    for region in regions:
        width = float(crack_width(region).max())
        widest, work = max(widest, width), work + region.size * width
        length = None if length is None or work > MOST_WORK else length + skeleton_length(region)
    mean = area / length if length else None

    def scaled(value: float | None, power: int = 1) -> float | None:
        return None if value is None or mm_per_pixel is None else value * mm_per_pixel**power

    return CrackMeasures(
        share=area / mask.size,
        cracks=cracks,
        area_px=area,
        length_px=length,
        mean_width_px=mean,
        largest_width_px=widest or None,
        mm_per_pixel=mm_per_pixel,
        area_mm2=scaled(area, 2),
        length_mm=scaled(length),
        mean_width_mm=scaled(mean),
        largest_width_mm=scaled(widest or None),
    )


def skeleton_length(mask: Bool[np.ndarray, "h w"] | Region) -> float:
    """The length in pixels of the skeleton of all that is not 0 in `mask`, as Zhang and Suen thin it (1984,
    Communications of the ACM 27(3)).

    Steps between the centres of neighbours are summed: 1 along rows and columns, sqrt(2) along diagonals,
    which are steps only where no third pixel of the skeleton touches both (the two steps by way of it are).
    """
    from skimage.morphology import skeletonize

    thin = np.asarray(skeletonize(mask != 0))
    upper_left, upper_right = thin[:-1, :-1], thin[:-1, 1:]
    lower_left, lower_right = thin[1:, :-1], thin[1:, 1:]
    straight = np.count_nonzero(thin[1:] & thin[:-1]) + np.count_nonzero(thin[:, 1:] & thin[:, :-1])
    falling = np.count_nonzero(upper_left & lower_right & ~upper_right & ~lower_left)
    rising = np.count_nonzero(upper_right & lower_left & ~upper_left & ~lower_right)
    return float(straight + math.sqrt(2) * (falling + rising))


def _regions(mask: Region) -> tuple[int, Iterator[Region]]:
    """How many cracks there are, and parts of the mask (0, 1) that hold them all and can be measured apart:
    each crack alone in its bounding box, small ones together on sheets, or the mask as it is where that is
    less work.

    Neither thinning nor widths of a crack depend on another, since pixels of two cracks never touch.
    """
    import cv2

    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    left, top, width, height = boxes[1:, :4].T.astype(np.int64)  # of the labels from 1 on
    if np.sum(width * height + BOX_COST) >= mask.size:
        return count - 1, iter([mask])

    def box(place: np.intp) -> Region:
        rows = slice(top[place], top[place] + height[place])
        columns = slice(left[place], left[place] + width[place])
        return np.asarray(labels[rows, columns] == place + 1, dtype=np.uint8)

    small = np.maximum(width, height) <= SMALL
    by_height = np.flatnonzero(small)[np.argsort(height[small], kind="stable")]
    return count - 1, chain(map(box, np.flatnonzero(~small)), _sheets(map(box, by_height)))


def _sheets(boxes: Iterable[Region]) -> Iterator[Region]:
    """The boxes, of rising heights, side by side and a pixel of background apart: a hundred specks are then
    no more work than one crack."""
    sheet = np.zeros((SHEET, SHEET), np.uint8)
    top = left = bottom = 0
    for box in boxes:
        height, width = box.shape
        if left + width > SHEET:
            top, left = bottom + 1, 0
        if top + height > SHEET:
            yield sheet[:bottom]
            sheet, top, left, bottom = np.zeros_like(sheet), 0, 0, 0
        bottom = top + height
        sheet[top:bottom, left : left + width] = box
        left += width + 1
    if bottom:
        yield sheet[:bottom]
