"""A skeleton as a graph: its pixels are nodes, joined to the pixels that they touch."""

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Complex128, Float64, Int64
from numba import njit

from fissura.data.skeleton_ends import corners, outwards

Nodes = Int64[np.ndarray, " n"]
Values = Float64[np.ndarray, " n"]
Points = Float64[np.ndarray, "n 2"]
Complexes = Complex128[np.ndarray, " n"]

SPUR = 1.75  # radii of the crack at a fork: a shorter branch is a spur
CROSSING = 2.0  # radii of the crack around a fork within which two cracks look like one wide one

_compiled = njit(nogil=True, cache=True, error_model="numpy")


class SkeletonGraph:
    """The graph of pixels `rows`, `columns`, sorted by row, then column.

    `radius` [n] is each pixel's distance to the background, in pixels; `first` and `second` [m] are the nodes
    of each step, of length 1 along rows and columns, sqrt(2) along diagonals, which are steps only if no
    third pixel touches both. `degree` [n] counts each node's steps.
    """

    def __init__(self, rows: Nodes, columns: Nodes, radius: Values) -> None:
        self.rows, self.columns, self.radius = rows, columns, radius
        self.first, self.second = _steps(rows, columns)
        self._starts, self._beside = _neighbours(self.first, self.second, len(rows))
        self.degree = np.diff(self._starts)

    @property
    def points(self) -> Points:
        """(x, y) of each node."""
        return np.stack((self.columns, self.rows), 1).astype(np.float64)

    @cached_property
    def part(self) -> Nodes:
        """The number of the connected part that each node belongs to."""
        return np.asarray(_parts(self._starts, self._beside, np.zeros(len(self.rows), np.bool_)))

    def without_spurs(self) -> "SkeletonGraph":
        """The graph without branches that end within the crack's own width from their fork."""
        fork = self.degree >= 3
        branch = _parts(self._starts, self._beside, fork)
        size, open_ended = np.bincount(branch), np.bincount(branch, self.degree == 1) > 0
        reach = np.zeros(len(size))
        for here, there in ((self.first, self.second), (self.second, self.first)):
            meets = fork[here] & ~fork[there]
            np.maximum.at(reach, branch[there[meets]], self.radius[here[meets]])
        stays = ~(open_ended & (size <= SPUR * reach))[branch] | fork
        return (
            self if stays.all() else SkeletonGraph(self.rows[stays], self.columns[stays], self.radius[stays])
        )

    def trimmed(self, to_border: Values) -> "SkeletonGraph":
        """The graph without the parts of its ends in the crack's corners, where the skeleton leaves the
        middle. `to_border` [n]: each node's distance to the pixels beyond the image; a border cuts obliquely,
        and its corners reach far."""
        stays = ~corners(self._starts, self._beside, self.points, self.radius, to_border)
        return SkeletonGraph(self.rows[stays], self.columns[stays], self.radius[stays])

    def outwards(self, points: Points, ends: Nodes) -> Points:
        """The unit vector (x, y) from within the line to each of its `ends`, over 1.5 radii."""
        return np.asarray(outwards(self._starts, self._beside, points, self.radius, ends))

    def averaged(self, values: Values, *, over: Bool[np.ndarray, " n"], rounds: int) -> Values:
        """The mean over nearby nodes along the graph that are in `over`; without any, the node's own."""
        near = self.spread(np.stack((np.where(over, values, 0.0), over), 1), rounds=rounds)
        return np.where(near[:, 1] > 0, near[:, 0] / np.maximum(near[:, 1], 1e-300), values)

    def spread(self, values: Points, *, rounds: int) -> Points:
        """Replaces each node's values by the mean of its own and its neighbours', `rounds` times."""
        return self._spread(values, rounds=rounds, fixed=np.zeros(len(values), bool))

    def smoothed(self, points: Points, *, rounds: int) -> Points:
        """`spread` of points with fixed ends."""
        return self._spread(points, rounds=rounds, fixed=self.degree <= 1)

    def _spread(self, values: Points, *, rounds: int, fixed: Bool[np.ndarray, " n"]) -> Points:
        return np.asarray(_averages(values.astype(np.float64), self._starts, self._beside, rounds, fixed))

    def lengths(self, points: Points) -> Values:
        """Half the length of each node's steps, with the nodes at `points`."""
        step = np.hypot(*(points[self.second] - points[self.first]).T)
        return np.asarray(self._at_both_ends(step) / 2)

    def directions(self, points: Points, *, rounds: int) -> Points:
        """The unit vector (x, y) along the line at each node, either way round; along x at single nodes."""
        x, y = (points[self.second] - points[self.first]).T
        # a direction and its opposite have the same square
        squared = (x + 1j * y) ** 2 / np.maximum(np.hypot(x, y), 1e-9)
        total = self._at_both_ends(squared.real) + 1j * self._at_both_ends(squared.imag)
        total = _sums(total, self._starts, self._beside, rounds)
        along = np.sqrt(np.where(total == 0, 1, total))
        along /= np.abs(along)
        return np.stack((along.real, along.imag), 1)

    def away_from_forks(self) -> Bool[np.ndarray, " n"]:
        """Which nodes lie so far from forks that the crack around them is a single one."""
        from scipy.spatial import KDTree

        fork = self.degree >= 3
        if not fork.any():
            return np.asarray(~fork)
        points = self.points
        distance, nearest = KDTree(points[fork]).query(points)
        return np.asarray(distance > CROSSING * self.radius[fork][nearest])

    def _at_both_ends(self, step_values: Values) -> Values:
        count = len(self.rows)
        return np.bincount(self.first, step_values, count) + np.bincount(self.second, step_values, count)


@_compiled
def _neighbours(first: Nodes, second: Nodes, count: int) -> tuple[Nodes, Nodes]:
    """(starts [count + 1], beside): node i's neighbours are `beside[starts[i] : starts[i + 1]]`, sorted."""
    starts = np.zeros(count + 1, np.int64)
    for step in range(len(first)):
        starts[first[step] + 1] += 1
        starts[second[step] + 1] += 1
    for node in range(count):
        starts[node + 1] += starts[node]
    beside, free = np.empty(starts[count], np.int64), starts.copy()
    for step in range(len(first)):
        beside[free[first[step]]] = second[step]
        beside[free[second[step]]] = first[step]
        free[first[step]] += 1
        free[second[step]] += 1
    for node in range(count):  # about 2 each: sorted by insertion
        for last in range(starts[node] + 1, starts[node + 1]):
            place, moved = last, beside[last]
            while place > starts[node] and beside[place - 1] > moved:
                beside[place] = beside[place - 1]
                place -= 1
            beside[place] = moved
    return starts, beside


@_compiled
def _parts(starts: Nodes, beside: Nodes, apart: Bool[np.ndarray, " n"]) -> Nodes:
    """The number of the connected part of each node; nodes `apart` are parts of their own."""
    part, waiting, parts = np.full(len(apart), -1, np.int64), np.empty(len(apart), np.int64), 0
    for root in range(len(apart)):
        if part[root] >= 0:
            continue
        part[root], waiting[0], left = parts, root, 1
        while left and not apart[root]:
            left -= 1
            node = waiting[left]
            for place in range(starts[node], starts[node + 1]):
                other = beside[place]
                if part[other] < 0 and not apart[other]:
                    part[other], waiting[left] = parts, other
                    left += 1
        parts += 1
    return part


@_compiled
def _averages(
    values: Points,
    starts: Nodes,
    beside: Nodes,
    rounds: int,
    fixed: Bool[np.ndarray, " n"],
) -> Points:
    """The mean of each node's values and its neighbours', `rounds` times; `fixed` nodes keep theirs."""
    means, weight = values.copy(), 1.0 + np.diff(starts)
    for _ in range(rounds):
        for node in range(len(values)):
            if not fixed[node]:
                x, y = values[node]
                for place in range(starts[node], starts[node + 1]):
                    x += values[beside[place], 0]
                    y += values[beside[place], 1]
                means[node, 0], means[node, 1] = x / weight[node], y / weight[node]
        values, means = means, values
    return values


@_compiled
def _sums(values: Complexes, starts: Nodes, beside: Nodes, rounds: int) -> Complexes:
    """The sum of each node's value and its neighbours', `rounds` times."""
    for _ in range(rounds):
        sums = values.copy()
        for node in range(len(values)):
            total = 0j
            for place in range(starts[node], starts[node + 1]):
                total += values[beside[place]]
            sums[node] += total
        values = sums
    return values


def _steps(rows: Nodes, columns: Nodes) -> tuple[Nodes, Nodes]:
    wide = int(columns.max(initial=0)) + 3
    neighbours = _after(rows * wide + columns, wide)
    starts = [np.flatnonzero(to >= 0) for to in neighbours]
    return np.concatenate(starts), np.concatenate(
        [to[start] for to, start in zip(neighbours, starts, strict=True)]
    )


@_compiled
def _after(key: Nodes, wide: int) -> tuple[Nodes, Nodes, Nodes, Nodes]:
    """The node on the right of each, below it, and to its lower right and left if no third touches both; -1
    if there is none. Keys are row * wide + column, ascending."""
    right, below, falling, rising = np.full((4, len(key)), -1)
    low = 0
    for node in range(len(key)):
        if node + 1 < len(key) and key[node + 1] == key[node] + 1:
            right[node] = node + 1
        to_left = node > 0 and key[node - 1] == key[node] - 1
        while low < len(key) and key[low] < key[node] + wide - 1:
            low += 1
        for other in range(low, min(low + 3, len(key))):
            if key[other] == key[node] + wide:
                below[node] = other
            elif key[other] == key[node] + wide + 1:
                falling[node] = other
            elif key[other] == key[node] + wide - 1:
                rising[node] = other
        if right[node] >= 0 or below[node] >= 0:
            falling[node] = -1
        if to_left or below[node] >= 0:
            rising[node] = -1
    return right, below, falling, rising
