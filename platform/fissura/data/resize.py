"""How an image and its mask are brought to the working size of a recipe, before the cache keeps them."""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from fissura.core.spec import Spec

MaskRule = Literal["nearest", "area"]


class Native(Spec):
    """Images keep their size."""

    kind: Literal["native"] = "native"

    def image(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The image itself."""
        return image

    def mask(self, mask: UInt8[np.ndarray, "h w"], *, rule: MaskRule = "nearest") -> UInt8[np.ndarray, "h w"]:
        """The mask itself, whatever the rule."""
        return mask


class Fixed(Spec):
    """Images become `height` x `width` pixels: images by pixel area (bilinear to enlarge), masks as `masks`
    says.

    "nearest": by nearest neighbour, as most papers do. "area": a working pixel is crack where half of it is,
    and wherever a crack passes that would otherwise break or grow shorter. "auto": by area for each data set
    of whose cracks nearest neighbour would lose more than `fissura.data.lost.MOST_LOST`, else nearest.
    """

    kind: Literal["fixed"] = "fixed"
    height: int = Field(512, ge=16, le=8192)
    width: int = Field(512, ge=16, le=8192)
    masks: Literal["auto", "nearest", "area"] = "auto"

    def image(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """The image at the working size."""
        import cv2

        shrinks = image.shape[0] > self.height or image.shape[1] > self.width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (self.width, self.height), interpolation=method), dtype=np.uint8)

    def mask(
        self, mask: UInt8[np.ndarray, "h w"], *, rule: MaskRule = "nearest"
    ) -> UInt8[np.ndarray, "height width"]:
        """The mask at the working size, still {0, 1}."""
        import cv2

        if rule == "area":
            return _by_area(mask, height=self.height, width=self.width)
        resized = cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, dtype=np.uint8)


AnyResize = Annotated[Native | Fixed, Field(discriminator="kind")]


def _by_area(mask: UInt8[np.ndarray, "h w"], *, height: int, width: int) -> UInt8[np.ndarray, "height width"]:
    """The pixels of which at least half is crack; and all that a piece of crack touches, unless the former
    are in one piece and a pixel beside each of the latter. So no piece is lost and none breaks.
    """
    import cv2

    rows, columns = (min(pair) for pair in zip(mask.shape, (height, width), strict=True))
    touched = np.zeros((rows, columns), np.uint8)
    row, column = np.nonzero(mask)
    touched[row * rows // mask.shape[0], column * columns // mask.shape[1]] = 1
    share = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    half = ((share >= 0.5) & (touched > 0)).astype(np.uint8)

    square = np.ones((3, 3), np.uint8)
    number, piece_of = cv2.connectedComponents(touched, connectivity=8)
    parts, part_of = cv2.connectedComponents(half, connectivity=8)
    piece_of_part = np.zeros(parts, np.int64)
    piece_of_part[part_of.ravel()] = piece_of.ravel()
    enough = np.bincount(piece_of_part[1:], minlength=number) == 1
    far = (touched > 0) & (cv2.dilate(half, square) == 0)
    enough[np.unique(piece_of[far])] = False
    small = np.where(enough[piece_of], half, touched)
    # an axis along which the mask grows repeats its pixels
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
