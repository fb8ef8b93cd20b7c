"""The ends of a skeleton's lines: walked from the tip inwards.

Compiled with numba: a walk is a loop of a few steps.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit

Nodes = Int64[np.ndarray, " n"]
Values = Float64[np.ndarray, " n"]
Points = Float64[np.ndarray, "n 2"]

CORNER = 1.75  # radii of the crack: the longest corner
CLEAR = 1.25  # radii, plus a pixel: a border at this distance does not attract the skeleton
FARTHEST = 12  # radii, plus two pixels, from a skeleton's end to a border that cuts its crack at 5 degrees
STRAIGHT = 1.5  # radii, plus two pixels: the largest offset of a corner from a straight crack
NARROWED = 0.8  # of the crack's radius: a skeleton that ends in a corner is nearer to its sides
MOST_TRIMMED = 3  # an end loses at most one part in so many of its line
BASE = 6, 1.5  # pixels, or radii if they are more, over which an end's direction is measured

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def _inwards(starts: Nodes, beside: Nodes, end: int, most: int, path: Nodes) -> int:
    """Writes the nodes from an end on, up to a fork, another end or `most`, to `path`; their number."""
    count, before, node = 0, -1, end
    while count < most and starts[node + 1] - starts[node] <= 2:
        path[count] = node
        count += 1
        after = -1
        for place in range(starts[node], starts[node + 1]):
            if beside[place] != before:
                after = beside[place]
        if after < 0:
            break
        before, node = node, after
    return count


@_compiled
def outwards(starts: Nodes, beside: Nodes, points: Points, radius: Values, ends: Nodes) -> Points:
    """The unit vector (x, y) from within the line to each of its `ends`."""
    vectors, path = np.empty((len(ends), 2)), np.empty(len(points), np.int64)
    for number, end in enumerate(ends):
        most = int(max(BASE[0], BASE[1] * radius[end])) + 1
        count = _inwards(starts, beside, end, most, path)
        inner = path[count - 1]
        if count == 1:  # a fork is next to it
            inner = beside[starts[end]]
        dx, dy = points[end] - points[inner]
        vectors[number, 0], vectors[number, 1] = dx / np.hypot(dx, dy), dy / np.hypot(dx, dy)
    return vectors


@_compiled
def _radius_within(radius: Values, path: Nodes, place: int, count: int) -> float:
    """The crack's radius further in on `path`: as far from `place` as an end's direction is measured."""
    within = place
    for _ in range(8):  # a corner's own radius is too small, and grows inwards
        within = min(count - 1, place + int(BASE[0] + BASE[1] * radius[path[within]]))
    return float(radius[path[within]])


@_compiled
def corners(
    starts: Nodes, beside: Nodes, points: Points, radius: Values, to_border: Values
) -> Bool[np.ndarray, " n"]:
    """Which nodes lie in a corner between a side of the crack and its end."""
    in_corner, path = np.zeros(len(points), np.bool_), np.empty(len(points), np.int64)
    for end in range(len(points)):
        if starts[end + 1] - starts[end] != 1:
            continue
        count = _inwards(starts, beside, end, len(points), path)
        inner = _radius_within(radius, path, 0, count)
        if radius[end] >= NARROWED * inner and to_border[end] > CLEAR * inner + 1:
            continue
        most, tip, trimmed = (count - 2) // MOST_TRIMMED, points[end], 0
        while trimmed < most:
            node = path[trimmed]
            if np.hypot(points[node, 0] - tip[0], points[node, 1] - tip[1]) > CORNER * radius[node]:
                break
            trimmed += 1
        cut = 0
        while cut < most and to_border[path[cut]] <= CLEAR * _radius_within(radius, path, cut, count) + 1:
            cut += 1
        if cut > FARTHEST * radius[path[cut]] + 2:
            cut = 0  # it runs along the border
        if trimmed < cut:
            # a crack that goes straight on is narrowed by the border; one that turns runs along it
            node = path[cut]
            base = path[min(count - 1, cut + int(max(BASE[0], BASE[1] * radius[node])))]
            (x, y), (dx, dy) = tip - points[node], points[node] - points[base]
            if abs(x * dy - y * dx) <= (STRAIGHT * radius[node] + 2) * np.hypot(dx, dy):
                trimmed = cut
        for place in range(trimmed):
            in_corner[path[place]] = True
    return in_corner
