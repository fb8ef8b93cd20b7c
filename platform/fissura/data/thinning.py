"""Thinning of masks to lines one pixel wide, at a cost that goes with the crack pixels alone."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numba import njit

Places = Int64[np.ndarray, " n"]

# N, NE, E, SE, S, SW, W, NW, as (row, column)
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def thinned(mask: UInt8[np.ndarray, "h w"], *, most: int) -> tuple[Places, Places] | None:
    """(rows, columns) of the skeleton of `mask` (0, 1), row by row, as Guo and Hall thin it (1989,
    Communications of the ACM 32(3), algorithm A1). Zhang and Suen's erases diagonals of even width.

    None where more than `most` pixels would have to be taken away.
    """
    import cv2

    padded = np.ascontiguousarray(np.pad(mask, 1))  # a view keeps its strides
    left, columns = padded.ravel(), padded.shape[1]
    around = np.array([row * columns + column for row, column in _AROUND])
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))
    border = np.flatnonzero((padded - inner).view(bool))
    if not _thin(left, border, around, _removable(), most):
        return None
    rows, places = np.divmod(np.flatnonzero(padded.view(bool)), columns)
    return rows - 1, places - 1


@njit(nogil=True, cache=True)
def _thin(
    left: UInt8[np.ndarray, " p"],
    border: Places,
    around: Places,
    removable: Bool[np.ndarray, "2 256"],
    most: int,
) -> bool:
    """Takes away what is no skeleton; False where that is more than `most` pixels."""
    # a pass looks again at the pixels beside those that went in the two before it, which are all that changed
    looked_at, earlier, passes, gone = border, border, 0, 0
    while len(looked_at):
        deleted = np.empty(len(looked_at), np.int64)
        count = 0
        for place in looked_at:
            code = 0
            for bit in range(8):
                code |= left[place + around[bit]] << bit
            if removable[passes % 2, code]:
                deleted[count] = place
                count += 1
        deleted = deleted[:count]
        for place in deleted:
            left[place] = 0
        passes, gone = passes + 1, gone + count
        if gone > most:
            return False
        found = np.empty(8 * count + len(earlier), np.int64)
        beside = 0
        for place in deleted:
            for offset in around:
                if left[place + offset] == 1:
                    left[place + offset] = 2  # so that none is taken twice
                    found[beside] = place + offset
                    beside += 1
        every = beside
        for place in earlier:
            if left[place] == 1:
                found[every] = place
                every += 1
        for place in found[:beside]:
            left[place] = 1
        looked_at, earlier = found[:every], found[:beside]
    return True


@cache
def _removable() -> Bool[np.ndarray, "2 256"]:
    """Whether a pixel with these neighbours (a bit each) goes, in odd and in even passes."""
    n, ne, e, se, s, sw, w, nw = (np.arange(256) >> bit & 1 for bit in range(8))
    crossings = (1 - n) * (ne | e) + (1 - e) * (se | s) + (1 - s) * (sw | w) + (1 - w) * (nw | n)
    pairs = np.minimum((nw | n) + (ne | e) + (se | s) + (sw | w), (n | ne) + (e | se) + (s | sw) + (w | nw))
    simple = (crossings == 1) & (pairs >= 2) & (pairs <= 3)
    return np.stack((simple & ((s | sw | 1 - nw) & w == 0), simple & ((n | ne | 1 - se) & e == 0)))
