"""The pixels at which components and holes of a map begin and end as a threshold falls from its maximum to 0.

Compiled with numba: a union-find over the sorted pixels takes a few steps for each.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int64
from numba import njit

Pixels = Int64[np.ndarray, " n"]

# the four sides, then the four corners
_DOWN = (-1, 1, 0, 0, -1, -1, 1, 1)
_RIGHT = (0, 0, -1, 1, -1, 1, -1, 1)


def components(p: Float[np.ndarray, "h w"]) -> tuple[Pixels, Pixels]:
    """(highest pixel, pixel where it meets a higher one) of each component of pixels that touch by sides or
    corners; pixels are counted row by row. The highest component of all meets none: its second is the number
    of pixels. Of equal pixels the first is the highest."""
    order = np.argsort(-p.ravel(), kind="stable")
    tops, meetings = _merged(order, *p.shape, 8)
    return np.append(tops, order[0]), np.append(meetings, p.size)


def holes(p: Float[np.ndarray, "h w"]) -> tuple[Pixels, Pixels]:
    """(pixel that closes the ring around it, lowest pixel) of each hole of pixels that touch by sides; the
    image lies in a frame of 0, and what touches that is no hole."""
    bottoms, meetings = _merged(np.argsort(p.ravel(), kind="stable"), *p.shape, 4)
    return meetings, bottoms


@njit(nogil=True, cache=True)
@no_type_check  # a run-time check of shapes would hand numba the check in place of the function
def _merged(order: Pixels, height: int, width: int, sides: int) -> tuple[Pixels, Pixels]:
    """(first pixel, pixel where it meets an earlier one) of each component of the pixels that come in `order`
    and touch by 8 or 4 `sides`; of 4, what lies beyond the image is a component that comes first."""
    pixels = height * width
    root, arrival = np.full(pixels + 1, -1), np.full(pixels + 1, -1)
    root[pixels] = pixels  # what lies beyond the image
    firsts, meetings, count = np.empty(pixels, np.int64), np.empty(pixels, np.int64), 0
    for time in range(pixels):
        pixel = order[time]
        root[pixel], arrival[pixel] = pixel, time
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
            young, old = (own, other) if arrival[own] > arrival[other] else (other, own)
            if young != pixel:  # a pixel is a component of its own only until it meets one
                firsts[count], meetings[count] = young, pixel
                count += 1
            root[young] = old
            own = old
    return firsts[:count].copy(), meetings[:count].copy()
