"""Thinning of masks to lines one pixel wide, at a cost that goes with the crack pixels alone."""

from functools import cache

import numpy as np
from jaxtyping import Bool, Int64, UInt8

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
    border = np.flatnonzero(padded - cv2.erode(padded, np.ones((3, 3), np.uint8)))
    # a pass looks again at the pixels beside those that went in the two before it, which are all that changed
    looked_at, earlier, passes, gone = border, border, 0, 0
    while len(looked_at):
        code = np.zeros(len(looked_at), np.uint8)
        for bit, offset in enumerate(around):
            code |= left[looked_at + offset] << bit
        deleted = looked_at[_removable()[passes % 2][code]]
        left[deleted] = 0
        passes, gone = passes + 1, gone + len(deleted)
        if gone > most:
            return None
        # marked by 2, so that none is taken twice
        found = []
        for offset in around:
            near = deleted + offset
            near = near[left[near] == 1]
            left[near] = 2
            found.append(near)
        beside = np.concatenate(found)
        looked_at = np.concatenate((beside, earlier[left[earlier] == 1]))
        left[beside] = 1
        earlier = beside
    rows, places = np.nonzero(padded)
    return rows - 1, places - 1


@cache
def _removable() -> Bool[np.ndarray, "2 256"]:
    """Whether a pixel with these neighbours (a bit each) goes, in odd and in even passes."""
    n, ne, e, se, s, sw, w, nw = (np.arange(256) >> bit & 1 for bit in range(8))
    crossings = (1 - n) * (ne | e) + (1 - e) * (se | s) + (1 - s) * (sw | w) + (1 - w) * (nw | n)
    pairs = np.minimum((nw | n) + (ne | e) + (se | s) + (sw | w), (n | ne) + (e | se) + (s | sw) + (w | nw))
    simple = (crossings == 1) & (pairs >= 2) & (pairs <= 3)
    return np.stack((simple & ((s | sw | 1 - nw) & w == 0), simple & ((n | ne | 1 - se) & e == 0)))
