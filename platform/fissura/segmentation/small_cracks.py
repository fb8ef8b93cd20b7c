"""Removes small cracks from a map of probabilities, at all thresholds at once.

At each threshold the new map keeps the pixels that lie in a large enough group of touching pixels, corners
included: an area opening (Vincent, NATO Shape in Picture Workshop 1992), by union-find over the pixels from
the highest down (Meijster and Wilkinson, IEEE PAMI 2002).

An exported bundle holds this file and runs it without numba: it needs only NumPy.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def open_levels(order: Any, values: Any, around: Any, pixels: int) -> None:
    """Lowers the `values` of a flat map in place to the level at which each pixel's group has `pixels`; 0
    where there is none. `order` are the indices of the pixels inside the border, the highest first; `around`
    the distances to a pixel's neighbours."""
    # -1: not met yet; a pixel that is its own parent is the last met, and so the lowest, of its group
    parents = [-1] * len(values)
    sizes = [1] * len(values)
    for pixel in order:
        parents[pixel] = pixel
        for distance in around:
            root = pixel + distance
            if parents[root] < 0:
                continue
            while parents[root] != root:
                parents[root] = parents[parents[root]]
                root = parents[root]
            if root == pixel:
                continue
            if values[root] == values[pixel] or sizes[root] < pixels:
                sizes[pixel] += sizes[root]
                parents[root] = pixel
            else:
                sizes[pixel] = pixels
    for pixel in order[::-1]:
        if parents[pixel] != pixel:
            values[pixel] = values[parents[pixel]]
        elif sizes[pixel] < pixels:
            values[pixel] = 0


def without_small_cracks(
    probability: np.ndarray, pixels: int, *, opening: Callable[[Any, Any, Any, int], None] | None = None
) -> np.ndarray:
    """The map, float32 [h w], in which at any threshold each group of crack pixels has at least `pixels`.

    `opening` is `open_levels` compiled, which takes arrays; without it lists are faster.
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
