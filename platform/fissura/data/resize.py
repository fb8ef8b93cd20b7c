"""Resizes an image and its mask to a recipe's working size, before the cache keeps them."""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Integer, UInt8
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

    "nearest": by nearest neighbour, as most papers do. "area": a working pixel is crack if half of it is, or
    if a crack would otherwise break or become shorter. "auto": by area for each data set whose cracks would
    lose more than `fissura.data.lost.MOST_LOST` by nearest neighbour, else nearest.
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
    """The pixels that are at least half crack; of a piece of crack all pixels that it touches, unless the
    former form one piece that is beside each of the latter. So no piece is lost and none breaks.
    """
    import cv2

    rows, columns = (min(pair) for pair in zip(mask.shape, (height, width), strict=True))
    every = touched(mask, rows=rows, columns=columns)
    half = (_half_crack(mask, rows=rows, columns=columns) & every.view(bool)).view(np.uint8)
    number, piece_of = pieces_of(every)
    parts, part_of = pieces_of(half)
    inside = np.flatnonzero(half.view(bool))
    piece_of_part = np.zeros(parts, np.int64)
    piece_of_part[part_of.ravel()[inside]] = piece_of.ravel()[inside]
    enough = np.bincount(piece_of_part[1:], minlength=number) == 1
    at = np.flatnonzero(every.view(bool))
    far = cv2.dilate(half, np.ones((3, 3), np.uint8)).ravel()[at] == 0
    piece = piece_of.ravel()[at]
    enough[piece[far]] = False
    small = every.copy()
    small.ravel()[at] = half.ravel()[at] | ~enough[piece]
    # enlarging repeats pixels
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def pieces_of(mask: UInt8[np.ndarray, "h w"]) -> tuple[int, Integer[np.ndarray, "h w"]]:
    """The number of pieces (8-connected) of a mask, the background included, and each pixel's piece."""
    import cv2

    # labels of 16 bits take half the time
    label_type = cv2.CV_16U if cv2.countNonZero(mask) < np.iinfo(np.uint16).max else cv2.CV_32S
    number, piece_of = cv2.connectedComponents(mask, connectivity=8, ltype=label_type)
    return number, np.asarray(piece_of)


def touched(mask: UInt8[np.ndarray, "h w"], *, rows: int, columns: int) -> UInt8[np.ndarray, "rows columns"]:
    """1 for each of `rows` x `columns` larger pixels that holds the upper left corner of a crack pixel."""
    height, width = mask.shape
    row, column = np.divmod(np.flatnonzero(mask.view(bool)), width)
    result = np.zeros((rows, columns), np.uint8)
    result[row * rows // height, column * columns // width] = 1
    return result


def _half_crack(
    mask: UInt8[np.ndarray, "h w"], *, rows: int, columns: int
) -> Bool[np.ndarray, "rows columns"]:
    """Which of `rows` x `columns` larger pixels are at least half crack. Computed from the ends of the runs
    of crack along the rows, in whole numbers: in units of 1/rows and 1/columns of a pixel, a larger pixel is
    as high and wide as the mask is in pixels.
    """
    height, width = mask.shape
    crack = np.zeros((height, width + 2), bool)
    crack[:, 1:-1] = mask
    row, column = np.divmod(np.flatnonzero(crack[:, 1:] != crack[:, :-1]), width + 1)
    upper, cell = row * rows // height, column * columns // width
    # everything right of a run's begin is crack, and right of its end is not
    sign = np.where(np.arange(len(row)) % 2 == 0, 1, -1)
    right = (cell + 1) * width - column * columns
    in_upper = np.minimum((upper + 1) * height - row * rows, rows)
    indices, steps = [], []
    for below, share in ((0, in_upper), (1, rows - in_upper)):
        index = (upper + below) * (columns + 2) + cell
        indices += [index, index + 1]
        steps += [sign * share * right, sign * share * (width - right)]
    # indices may be one beyond the last row, and two beyond the last column
    area = np.bincount(np.concatenate(indices), np.concatenate(steps), (rows + 1) * (columns + 2))
    area = area.reshape(rows + 1, columns + 2)
    np.cumsum(area, axis=1, out=area)  # in place: new memory would cost more than the sums
    return np.asarray(area[:rows, :columns] >= height * width / 2)
