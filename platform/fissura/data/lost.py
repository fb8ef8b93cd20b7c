"""What cracks lose where masks are brought to a working size, and the rule that is chosen by it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import UInt8

from fissura.data.resize import AnyResize, Fixed, MaskRule

MOST_LOST = 0.05  # of the crack pixels, or of the pieces
MOST_LOOKED_AT = 200  # masks of a data set, spread over it, by which the rule is chosen


@dataclass(frozen=True)
class LostCracks:
    """What is left of the cracks of some masks.

    `masks` hold a crack, `emptied` of them none at the working size. A crack pixel is lost (`lost_pixels` of
    `pixels`) where neither its working pixel nor one beside it is crack; a piece (8-connected) where all its
    pixels are (`lost_pieces` of `pieces`). `pieces_left` are seen at the working size.
    """

    masks: int = 0
    emptied: int = 0
    pixels: int = 0
    lost_pixels: int = 0
    pieces: int = 0
    pieces_left: int = 0
    lost_pieces: int = 0

    @classmethod
    def of(cls, mask: UInt8[np.ndarray, "h w"], small: UInt8[np.ndarray, "height width"]) -> Self:
        """What `mask` loses where it becomes `small`."""
        import cv2

        if not mask.any():
            return cls()
        size = (mask.shape[1], mask.shape[0])
        near = cv2.dilate(small, np.ones((3, 3), np.uint8))
        near = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST)
        number, piece_of = cv2.connectedComponents(mask, connectivity=8)
        crack = mask > 0
        return cls(
            masks=1,
            emptied=int(not small.any()),
            pixels=int(crack.sum()),
            lost_pixels=int((crack & (near == 0)).sum()),
            pieces=number - 1,
            pieces_left=cv2.connectedComponents(small, connectivity=8)[0] - 1,
            lost_pieces=number - 1 - len(np.unique(piece_of[crack & (near > 0)])),
        )

    @classmethod
    def none_of(cls, mask: UInt8[np.ndarray, "h w"]) -> Self:
        """What a mask loses that does not shrink: nothing."""
        import cv2

        if not mask.any():
            return cls()
        pieces = cv2.connectedComponents(mask, connectivity=8)[0] - 1
        return cls(masks=1, pixels=int(np.count_nonzero(mask)), pieces=pieces, pieces_left=pieces)

    def __add__(self, other: "LostCracks") -> "LostCracks":
        return LostCracks(*(getattr(self, key) + getattr(other, key) for key in self.__dataclass_fields__))

    @property
    def any(self) -> bool:
        """Whether anything is lost, or breaks."""
        return bool(self.lost_pixels or self.lost_pieces) or self.pieces_left != self.pieces

    @property
    def too_many(self) -> bool:
        """Whether more than `MOST_LOST` is lost, or the cracks fall into so many more pieces."""
        torn = max(self.lost_pieces, self.pieces_left - self.pieces)
        return self.lost_pixels > MOST_LOST * self.pixels or torn > MOST_LOST * self.pieces

    def __str__(self) -> str:
        share = self.lost_pixels / self.pixels if self.pixels else 0.0
        emptied = f", {self.emptied} of {self.masks} masks keep none" if self.emptied else ""
        return (
            f"{share:.1%} of the crack pixels lost, {self.lost_pieces} of {self.pieces} pieces gone,"
            f" {self.pieces_left} left{emptied}"
        )


def lost_at(resize: AnyResize, mask: UInt8[np.ndarray, "h w"], *, rule: MaskRule = "nearest") -> LostCracks:
    """What `mask` loses at the working size."""
    if not isinstance(resize, Fixed):
        return LostCracks()
    if mask.shape[0] <= resize.height and mask.shape[1] <= resize.width:
        return LostCracks.none_of(mask)
    return LostCracks.of(mask, resize.mask(mask, rule=rule))


def choose_rule(
    resize: AnyResize, masks: Iterable[Callable[[], UInt8[np.ndarray, "h w"] | None]]
) -> MaskRule:
    """The rule for the masks of one data set, which are read as far as they are looked at."""
    if not isinstance(resize, Fixed) or resize.masks == "nearest":
        return "nearest"
    if resize.masks == "area":
        return "area"
    readers = list(masks)
    step = max(1, len(readers) // MOST_LOOKED_AT)
    read = (reader() for reader in readers[::step])
    lost = sum((lost_at(resize, mask) for mask in read if mask is not None), LostCracks())
    return "area" if lost.too_many else "nearest"


def both_lost(resize: AnyResize, mask: UInt8[np.ndarray, "h w"]) -> tuple[LostCracks, LostCracks]:
    """What `mask` loses by nearest neighbour, and what by area."""
    nearest = lost_at(resize, mask)
    return nearest, lost_at(resize, mask, rule="area") if nearest.any else nearest


def said_of(resize: AnyResize, *, rule: MaskRule, nearest: LostCracks, lost: LostCracks) -> str | None:
    """One line about the masks of a data set at the working size, where something is worth it: `nearest` is
    what nearest neighbour would lose, `lost` what the `rule` loses.
    """
    if not isinstance(resize, Fixed) or not (nearest.too_many or lost.too_many):
        return None
    size = f"{resize.width}x{resize.height} (width x height)"
    if rule == "nearest":
        return f"masks at {size}: {lost}; `data.resize.masks=area` keeps cracks whole"
    return f"masks at {size}: by nearest neighbour {nearest}; so they are shrunk by area: {lost}"
