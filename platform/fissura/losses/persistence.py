"""Which pixels make and end the components and the holes of a map, as a threshold falls from its top to 0.

Compiled with numba: a union-find over the sorted pixels is a loop of a few steps for each.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int64
from numba import njit

Places = Int64[np.ndarray, " n"]

# the four sides, then the four corners
_DOWN = (-1, 1, 0, 0, -1, -1, 1, 1)
_RIGHT = (0, 0, -1, 1, -1, 1, -1, 1)


def components(p: Float[np.ndarray, "h w"]) -> tuple[Places, Places]:
    """(highest pixel, pixel where it meets a higher one) of each component of pixels that touch by sides or
    corners; pixels are counted row by row. The component that is highest of all meets none: there stands the
    number of pixels. Of equal pixels the first is the highest."""
    order = np.argsort(-p.ravel(), kind="stable")
    tops, meetings = _merged(order, *p.shape, 8)
    return np.append(tops, order[0]), np.append(meetings, p.size)


def holes(p: Float[np.ndarray, "h w"]) -> tuple[Places, Places]:
    """(pixel that closes the ring around it, lowest pixel) of each hole of pixels that touch by sides; the
    image lies in a frame of 0, and what touches that is no hole."""
    bottoms, meetings = _merged(np.argsort(p.ravel(), kind="stable"), *p.shape, 4)
    return meetings, bottoms


@njit(nogil=True, cache=True)
@no_type_check  # where shapes are checked at run time numba would get the check in place of the function
def _merged(order: Places, height: int, width: int, sides: int) -> tuple[Places, Places]:
    """(first pixel, pixel where it meets an earlier one) of each component of the pixels that come in `order`
    and touch by 8 or 4 `sides`; of 4, whatever lies beyond the image is there before all."""
    pixels = height * width
    root, came = np.full(pixels + 1, -1), np.full(pixels + 1, -1)
    root[pixels] = pixels  # what lies beyond the image
    firsts, meetings, count = np.empty(pixels, np.int64), np.empty(pixels, np.int64), 0
    for time in range(pixels):
        pixel = order[time]
        root[pixel], came[pixel] = pixel, time
        row, column, own = pixel // width, pixel % width, pixel
        for side in range(sides):
            r, c = row + _DOWN[side], column + _RIGHT[side]
            if 0 <= r < height and 0 <= c < width:
                other = r * width + c
            elif sides == 4:
                other = pixels
            else:
                continue
            if root[other] < 0:
                continue
            while root[other] != other:
                root[other] = root[root[other]]
                other = root[other]
            if other == own:
                continue
            young, old = (own, other) if came[own] > came[other] else (other, own)
            if young != pixel:  # which is a component only where nothing is beside it
                firsts[count], meetings[count] = young, pixel
                count += 1
            root[young] = old
            own = old
    return firsts[:count].copy(), meetings[:count].copy()
