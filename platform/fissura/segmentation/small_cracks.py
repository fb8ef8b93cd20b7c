"""Small cracks taken out of a map of probabilities, at all thresholds at once.

The map that is left has, at each threshold, those pixels of the one before that lie in a group of enough
pixels which touch, corners included: an area opening (Vincent, NATO Shape in Picture Workshop 1992), by
union-find over the pixels from the highest down (Meijster and Wilkinson, IEEE PAMI 2002).

An exported bundle holds this file, and runs it without numba: it needs NumPy alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def open_levels(order: Any, values: Any, around: Any, pixels: int) -> None:
    """Lowers `values`, of a flat map, in place, to the level at which each pixel's group has `pixels`; 0
    where there is none. `order` are the places of the map's pixels, the highest first, none of them on its
    border; `around` the distances to a place's neighbours."""
    # -1: not met yet; a place that is its own parent is the last met, and so the lowest, of its group
    parents = [-1] * len(values)
    sizes = [1] * len(values)
    for place in order:
        parents[place] = place
        for distance in around:
            root = place + distance
            if parents[root] < 0:
                continue
            while parents[root] != root:
                parents[root] = parents[parents[root]]
                root = parents[root]
            if root == place:
                continue
            if values[root] == values[place] or sizes[root] < pixels:
                sizes[place] += sizes[root]
                parents[root] = place
            else:
                sizes[place] = pixels
    for place in order[::-1]:
        if parents[place] != place:
            values[place] = values[parents[place]]
        elif sizes[place] < pixels:
            values[place] = 0


def without_small_cracks(
    probability: np.ndarray, pixels: int, *, opening: Callable[[Any, Any, Any, int], None] | None = None
) -> np.ndarray:
    """A map float32 [h w] of which, at any threshold, each group of crack pixels has at least `pixels`.

    `opening` is `open_levels` compiled: it takes arrays, and `open_levels` itself lists, which Python is
    quicker with.
    """
    if pixels < 2:
        return probability
    wide = np.pad(probability, 1)
    columns = wide.shape[1]
    inside = np.arange(wide.size).reshape(wide.shape)[1:-1, 1:-1].ravel()
    order = inside[np.argsort(-wide.ravel()[inside], kind="stable")]
    around = np.array([row * columns + column for row, column in AROUND])
    values = wide.ravel()
    if opening is None:
        levels = values.tolist()
        open_levels(order.tolist(), levels, around.tolist(), pixels)
        values = np.array(levels, np.float32)
    else:
        opening(order, values, around, pixels)
    return values.reshape(wide.shape)[1:-1, 1:-1].copy()
