"""How far it is from a point to the edge of a crack, finer than a pixel: where a map crosses a level."""

import numpy as np
from jaxtyping import Float64, UInt8

Plane = UInt8[np.ndarray, "h w"]
Points = Float64[np.ndarray, "n 2"]
Lengths = Float64[np.ndarray, " n"]

STEP = 0.5  # pixels between two looks at the map along a ray
TURNS = tuple(np.radians((0, 20, -20, 40, -40)))


def chords(plane: Plane, *, level: float, points: Points, along: Points, most: Lengths) -> Lengths:
    """The shortest chord through each point (x, y) of all that run about across the unit vector `along`, so
    that a line whose direction is not quite known is not taken for wider. Half a chord is at most `most`."""
    found: Lengths = np.full(len(points), np.inf)
    for turn in TURNS:
        cos, sin = np.cos(turn), np.sin(turn)
        across = np.stack((-along[:, 1] * cos - along[:, 0] * sin, along[:, 0] * cos - along[:, 1] * sin), 1)
        found = np.minimum(found, chord(plane, level=level, points=points, across=across, most=most))
    return np.asarray(found)


def chord(plane: Plane, *, level: float, points: Points, across: Points, most: Lengths) -> Lengths:
    """How long the crack is along the line through each point (x, y) in the direction of `across`."""
    one_way = to_edge(plane, level=level, start=points, towards=across, most=most)
    both: Lengths = one_way + to_edge(plane, level=level, start=points, towards=-across, most=most)
    return both


def to_edge(plane: Plane, *, level: float, start: Points, towards: Points, most: Lengths) -> Lengths:
    """How far it is from each `start` (x, y) in the direction of the unit vector `towards` until the map,
    linear between the centres of its pixels, falls below `level`; at most about `most`, and 0 where it begins
    below. The crack ends with the image: half a pixel beyond the centres of its outer pixels."""
    found: Lengths = most.copy()
    before = _above(plane, level, start)
    found[before < 0] = 0
    on = np.flatnonzero(before >= 0)
    before, gone = before[on], 0.0
    while len(on):
        now = _above(plane, level, start[on] + (gone + STEP) * towards[on])
        out = now < 0
        found[on[out]] = gone + STEP * before[out] / (before[out] - now[out])
        gone += STEP
        stays = ~out & (gone < most[on])
        on, before = on[stays], now[stays]
    return found


def _above(plane: Plane, level: float, points: Points) -> Lengths:
    """The map less the level, between the pixels' centres."""
    (height, width), (x, y) = plane.shape, points.T
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, low_share = x - left, y - top

    def at(row: np.ndarray, column: np.ndarray) -> Lengths:
        value = plane[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] - level
        outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
        # as far below the level as the outer pixel is above it: they cross in the middle
        seen: Lengths = np.where(outside, np.minimum(-np.abs(value), -1e-300), value)
        return seen

    upper = at(top, left) * (1 - right_share) + at(top, left + 1) * right_share
    lower = at(top + 1, left) * (1 - right_share) + at(top + 1, left + 1) * right_share
    return np.asarray(upper * (1 - low_share) + lower * low_share)
