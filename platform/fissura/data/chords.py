"""Distances from a point to the edge of a crack, finer than a pixel: where a map crosses a level.

Compiled with numba: a ray is a loop of a few steps.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

Plane = UInt8[np.ndarray, "h w"]
Points = Float64[np.ndarray, "n 2"]
Pixels = Int64[np.ndarray, " n"]
Lengths = Float64[np.ndarray, " n"]

STEP = 0.5  # pixels between two samples of the map along a ray
DIAGONAL = 1.5  # pixels, a little more than a pixel's diagonal
TURNS = tuple(float(turn) for turn in np.radians((0, 20, -20, 40, -40)))

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def chords(
    plane: Plane, level: float, points: Points, along: Points, within: Lengths, most: Lengths
) -> Lengths:
    """The shortest chord through each point (x, y) roughly across the unit vector `along`, so that an inexact
    direction does not make a line wider; at most `most`. `within` as in `to_edge`."""
    shortest = most.copy()
    for point in range(len(points)):
        x, y = points[point]
        for turn in TURNS:
            cos, sin = np.cos(turn), np.sin(turn)
            dx, dy = (
                -along[point, 1] * cos - along[point, 0] * sin,
                along[point, 0] * cos - along[point, 1] * sin,
            )
            # stops at the shortest so far
            length = _chord(plane, level, x, y, dx, dy, within[point], shortest[point])
            shortest[point] = min(shortest[point], length)
    return shortest


@_compiled
def chord(
    plane: Plane, level: float, points: Points, across: Points, within: Lengths, most: Lengths
) -> Lengths:
    """The crack's length along the line through each point (x, y) in the direction `across`; exact below
    `most`, else at least `most`. `within` as in `to_edge`."""
    distances = np.empty(len(points))
    for point in range(len(points)):
        (x, y), (dx, dy) = points[point], across[point]
        distances[point] = _chord(plane, level, x, y, dx, dy, within[point], most[point])
    return distances


@_compiled
def to_edge(
    plane: Plane, level: float, start: Points, towards: Points, within: Lengths, most: Lengths
) -> Lengths:
    """The distance from each `start` (x, y) in the direction of the unit vector `towards` at which the map,
    linear between the centres of its pixels, falls below `level`; at most about `most`, and 0 where it begins
    below. No pixel whose centre is nearer to the start than `within` may be below the level. The crack ends
    with the image: half a pixel beyond the centres of its outer pixels."""
    distances = np.empty(len(start))
    for point in range(len(start)):
        (x, y), (dx, dy) = start[point], towards[point]
        distances[point] = _ray(plane, level, x, y, dx, dy, within[point], most[point])
    return distances


@_compiled
def nearby(padded: Plane, rows: Pixels, columns: Pixels, most: int) -> Float32[np.ndarray, " n"]:
    """The distance of some pixels of a mask, whose outer ones are 0, to the nearest 0; above `most` where
    none is within `most` rows and columns."""
    distances = np.empty(len(rows), np.float32)
    for point in range(len(rows)):
        row, column, squared, ring = rows[point], columns[point], (most + 1) ** 2 * 2, 1
        while ring <= most and ring * ring < squared:
            for along in range(-ring, ring + 1):
                for down, right in ((-ring, along), (ring, along), (along, -ring), (along, ring)):
                    if (
                        0 <= row + down < padded.shape[0]
                        and 0 <= column + right < padded.shape[1]
                        and padded[row + down, column + right] == 0
                    ):
                        squared = min(squared, down * down + right * right)
            ring += 1
        distances[point] = np.sqrt(np.float32(squared))
    return distances


@_compiled
def _chord(
    plane: Plane, level: float, x: float, y: float, dx: float, dy: float, within: float, most: float
) -> float:
    one_way = _ray(plane, level, x, y, dx, dy, within, most)
    return float(one_way + _ray(plane, level, x, y, -dx, -dy, within, max(most - one_way, 0.0)))


@_compiled
def _ray(
    plane: Plane, level: float, x: float, y: float, dx: float, dy: float, within: float, most: float
) -> float:
    # nearer than this all four pixels around a point are crack
    passed = np.floor(max(within - DIAGONAL, 0.0) / STEP) * STEP
    before = _above(plane, level, x + passed * dx, y + passed * dy)
    if before < 0:
        return 0.0
    while passed < most:
        now = _above(plane, level, x + (passed + STEP) * dx, y + (passed + STEP) * dy)
        if now < 0:
            return float(passed + STEP * before / (before - now))
        before = now
        passed += STEP
    return most


@_compiled
def _above(plane: Plane, level: float, x: float, y: float) -> float:
    """The map minus the level, interpolated between the pixels' centres."""
    left, top = int(np.floor(x)), int(np.floor(y))
    right_share, low_share = x - left, y - top
    upper = _at(plane, level, top, left) * (1 - right_share) + _at(plane, level, top, left + 1) * right_share
    lower = (
        _at(plane, level, top + 1, left) * (1 - right_share)
        + _at(plane, level, top + 1, left + 1) * right_share
    )
    return float(upper * (1 - low_share) + lower * low_share)


@_compiled
def _at(plane: Plane, level: float, row: int, column: int) -> float:
    """A pixel minus the level; beyond the image as far below 0 as the outer pixel is above, so that the level
    is crossed in the middle."""
    height, width = plane.shape
    if 0 <= row < height and 0 <= column < width:
        return float(plane[row, column] - level)
    value = plane[min(max(row, 0), height - 1), min(max(column, 0), width - 1)] - level
    return float(min(-abs(value), -1e-300))
