"""The crack pixels that masks lose at a working size, and the choice of the mask rule by it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import UInt8

from fissura.data.resize import AnyResize, Fixed, MaskRule, pieces_of, touched

MOST_LOST = 0.05  # of the crack pixels, or of the pieces


@dataclass(frozen=True)
class LostCracks:
    """What some masks lose of their cracks.

    `masks` hold a crack, `emptied` of them none at the working size. A crack pixel is lost (`lost_pixels` of
    `pixels`) if neither its working pixel nor a neighbour of that is crack; a piece (8-connected) if all its
    pixels are (`lost_pieces` of `pieces`). `pieces_left` is their number at the working size.
    """

    masks: int = 0
    emptied: int = 0
    pixels: int = 0
    lost_pixels: int = 0
    pieces: int = 0
    pieces_left: int = 0
    lost_pieces: int = 0

    @classmethod
    def of(
        cls,
        mask: UInt8[np.ndarray, "h w"],
        small: UInt8[np.ndarray, "height width"],
        *,
        pieces: int | None = None,
    ) -> Self:
        """What `mask` loses when it becomes `small`; `pieces` is its number of pieces, if known."""
        import cv2

        (height, width), (rows, columns) = mask.shape, small.shape
        row, column = np.divmod(np.flatnonzero(mask.view(bool)), width)
        pixels = len(row)
        if not pixels:
            return cls()
        near = cv2.dilate(small, np.ones((3, 3), np.uint8)).view(bool)
        near = near[row * rows // height, column * columns // width]
        lost, lost_pieces = pixels - int(np.count_nonzero(near)), 0
        if lost or pieces is None:  # labelling is the slowest part
            box = _box(mask)
            number, piece_of = pieces_of(np.ascontiguousarray(mask[box]))
            pieces = number - 1
            if lost:
                seen = np.zeros(number, bool)
                seen[piece_of[row[near] - box[0].start, column[near] - box[1].start]] = True
                lost_pieces = pieces - int(np.count_nonzero(seen))
        return cls(
            masks=1,
            emptied=int(not small.any()),
            pixels=pixels,
            lost_pixels=lost,
            pieces=pieces,
            pieces_left=pieces_of(small)[0] - 1,
            lost_pieces=lost_pieces,
        )

    @classmethod
    def none_of(cls, mask: UInt8[np.ndarray, "h w"]) -> Self:
        """The counts of a mask that does not shrink: nothing is lost."""
        pixels = int(np.count_nonzero(mask))
        if not pixels:
            return cls()
        pieces = pieces_of(np.ascontiguousarray(mask[_box(mask)]))[0] - 1
        return cls(masks=1, pixels=pixels, pieces=pieces, pieces_left=pieces)

    def __add__(self, other: "LostCracks") -> "LostCracks":
        return LostCracks(*(getattr(self, key) + getattr(other, key) for key in self.__dataclass_fields__))

    @property
    def any(self) -> bool:
        """Whether anything is lost or breaks."""
        return bool(self.lost_pixels or self.lost_pieces) or self.pieces_left != self.pieces

    @property
    def too_many(self) -> bool:
        """Whether more than the share `MOST_LOST` is lost, or more pieces are added by breaks."""
        changed = max(self.lost_pieces, self.pieces_left - self.pieces)
        return self.lost_pixels > MOST_LOST * self.pixels or changed > MOST_LOST * self.pieces

    def __str__(self) -> str:
        share = self.lost_pixels / self.pixels if self.pixels else 0.0
        emptied = f", {self.emptied} of {self.masks} masks keep none" if self.emptied else ""
        return (
            f"{share:.1%} of the crack pixels lost, {self.lost_pieces} of {self.pieces} pieces gone,"
            f" {self.pieces_left} left{emptied}"
        )


def _box(mask: UInt8[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """The rows and columns of the cracks' bounding box."""
    import cv2

    left, top, width, height = cv2.boundingRect(mask)
    return slice(top, top + height), slice(left, left + width)


def lost_at(resize: AnyResize, mask: UInt8[np.ndarray, "h w"]) -> LostCracks:
    """What `mask` loses at the working size by nearest neighbour."""
    if not isinstance(resize, Fixed):
        return LostCracks()
    if not shrinks(resize, mask.shape):
        return LostCracks.none_of(mask)
    return LostCracks.of(mask, resize.mask(mask))


def shrinks(resize: AnyResize, size: tuple[int, ...]) -> bool:
    """Whether a mask of this (height, width) has fewer rows or columns at the working size."""
    return isinstance(resize, Fixed) and (size[0] > resize.height or size[1] > resize.width)


def both_lost(resize: AnyResize, mask: UInt8[np.ndarray, "h w"]) -> tuple[LostCracks, LostCracks]:
    """What `mask` loses by nearest neighbour, and what by area."""
    nearest = lost_at(resize, mask)
    return nearest, lost_by_area(resize, mask, nearest=nearest) if nearest.any else nearest


def lost_by_area(
    resize: AnyResize,
    mask: UInt8[np.ndarray, "h w"],
    *,
    nearest: LostCracks,
    small: UInt8[np.ndarray, "height width"] | None = None,
) -> LostCracks:
    """What `mask` loses at the working size by area; `nearest` is what it loses by nearest neighbour, and
    `small` is the mask by area, if known."""
    if not nearest.masks or not shrinks(resize, mask.shape) or not isinstance(resize, Fixed):
        return nearest
    if mask.shape[0] < resize.height or mask.shape[1] < resize.width:
        small = resize.mask(mask, rule="area") if small is None else small
        return LostCracks.of(mask, small, pieces=nearest.pieces)
    # the rule loses nothing, and leaves the pieces of all touched pixels
    small = touched(mask, rows=resize.height, columns=resize.width) if small is None else small
    left = pieces_of(small)[0] - 1
    return LostCracks(masks=1, pixels=nearest.pixels, pieces=nearest.pieces, pieces_left=left)


def loss_line(resize: AnyResize, *, rule: MaskRule, nearest: LostCracks, lost: LostCracks) -> str | None:
    """One line about the masks of a data set at the working size if much is lost, else None: `nearest` is
    what nearest neighbour would lose, `lost` what the `rule` loses.
    """
    if not isinstance(resize, Fixed) or not (nearest.too_many or lost.too_many):
        return None
    size = f"{resize.width}x{resize.height} (width x height)"
    if rule == "nearest":
        return f"masks at {size}: {lost}; `data.resize.masks=area` keeps cracks whole"
    return f"masks at {size}: by nearest neighbour {nearest}; so they are shrunk by area: {lost}"
