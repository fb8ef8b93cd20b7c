"""Thins masks to lines one pixel wide, at a cost proportional to the crack pixels."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numba import njit

Pixels = Int64[np.ndarray, " n"]

# N, NE, E, SE, S, SW, W, NW, as (row, column)
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def thinned(mask: UInt8[np.ndarray, "h w"], *, most: int) -> tuple[Pixels, Pixels] | None:
    """(rows, columns) of the skeleton of `mask` (0, 1), row by row, by the algorithm A1 of Guo and Hall
    (1989, Communications of the ACM 32(3)); Zhang and Suen's erases diagonals of even width.

    None if more than `most` pixels would have to be removed.
    """
    import cv2

    padded = np.ascontiguousarray(np.pad(mask, 1))  # a view keeps its strides
    left, columns = padded.ravel(), padded.shape[1]
    around = np.array([row * columns + column for row, column in _AROUND])
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))
    border = np.flatnonzero((padded - inner).view(bool))
    if not _thin(left, border, around, _removable(), most):
        return None
    row, column = np.divmod(np.flatnonzero(padded.view(bool)), columns)
    return row - 1, column - 1


@njit(nogil=True, cache=True)
def _thin(
    left: UInt8[np.ndarray, " p"],
    border: Pixels,
    around: Pixels,
    removable: Bool[np.ndarray, "2 256"],
    most: int,
) -> bool:
    """Removes the pixels that are not skeleton; False if these are more than `most`."""
    # a pass checks the neighbours of the pixels that the two previous ones removed: only these changed
    candidates, earlier, passes, removed = border, border, 0, 0
    while len(candidates):
        deleted = np.empty(len(candidates), np.int64)
        count = 0
        for pixel in candidates:
            code = 0
            for bit in range(8):
                code |= left[pixel + around[bit]] << bit
            if removable[passes % 2, code]:
                deleted[count] = pixel
                count += 1
        deleted = deleted[:count]
        for pixel in deleted:
            left[pixel] = 0
        passes, removed = passes + 1, removed + count
        if removed > most:
            return False
        following = np.empty(8 * count + len(earlier), np.int64)
        beside = 0
        for pixel in deleted:
            for offset in around:
                if left[pixel + offset] == 1:
                    left[pixel + offset] = 2  # so that none is taken twice
                    following[beside] = pixel + offset
                    beside += 1
        total = beside
        for pixel in earlier:
            if left[pixel] == 1:
                following[total] = pixel
                total += 1
        for pixel in following[:beside]:
            left[pixel] = 1
        candidates, earlier = following[:total], following[:beside]
    return True


@cache
def _removable() -> Bool[np.ndarray, "2 256"]:
    """Whether a pixel with these neighbours (a bit each) is removed, in odd and in even passes."""
    n, ne, e, se, s, sw, w, nw = (np.arange(256) >> bit & 1 for bit in range(8))
    crossings = (1 - n) * (ne | e) + (1 - e) * (se | s) + (1 - s) * (sw | w) + (1 - w) * (nw | n)
    pairs = np.minimum((nw | n) + (ne | e) + (se | s) + (sw | w), (n | ne) + (e | se) + (s | sw) + (w | nw))
    simple = (crossings == 1) & (pairs >= 2) & (pairs <= 3)
    return np.stack((simple & ((s | sw | 1 - nw) & w == 0), simple & ((n | ne | 1 - se) & e == 0)))
