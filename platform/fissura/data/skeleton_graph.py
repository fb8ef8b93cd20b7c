"""A skeleton as a graph: its pixels are nodes, joined to the pixels that they touch."""

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from numba import njit

Nodes = Int64[np.ndarray, " n"]
Values = Float64[np.ndarray, " n"]
Points = Float64[np.ndarray, "n 2"]

SPUR = 1.75  # radii of the crack at a fork: what ends nearer is no branch
CROSSING = 2.0  # radii of the crack about a fork within which two cracks are seen as one wide one


class SkeletonGraph:
    """The graph of pixels `rows`, `columns`, sorted by row, then column.

    `radius` [n] is how far each is from the background, in pixels; `first` and `second` [m] are the nodes of
    each step, 1 along rows and columns, sqrt(2) along diagonals, which are steps only where no third pixel
    touches both (the two steps by way of it are). `degree` [n] counts each node's steps.
    """

    def __init__(self, rows: Nodes, columns: Nodes, radius: Values) -> None:
        from scipy import sparse

        self.rows, self.columns, self.radius = rows, columns, radius
        self.first, self.second = _steps(rows, columns)
        ends = np.concatenate((self.first, self.second)), np.concatenate((self.second, self.first))
        self.degree = np.bincount(ends[0], minlength=len(rows))
        self._beside = sparse.csr_array((np.ones(len(ends[0])), ends), (len(rows), len(rows)))

    @property
    def points(self) -> Points:
        """(x, y) of each node."""
        return np.stack((self.columns, self.rows), 1).astype(np.float64)

    @cached_property
    def part(self) -> Nodes:
        """The number of the connected part that each node belongs to."""
        from scipy.sparse import csgraph

        return np.asarray(csgraph.connected_components(self._beside, directed=False)[1], dtype=np.int64)

    def without_spurs(self) -> "SkeletonGraph":
        """The graph without branches that end within the crack's own width from their fork."""
        from scipy import sparse
        from scipy.sparse import csgraph

        fork = self.degree >= 3
        inner = ~fork[self.first] & ~fork[self.second]
        steps = (self.first[inner], self.second[inner])
        joined = sparse.coo_array((np.ones(len(steps[0])), steps), self._beside.shape)
        branch = csgraph.connected_components(joined, directed=False)[1]
        size, open_ended = np.bincount(branch), np.bincount(branch, self.degree == 1) > 0
        reach = np.zeros(len(size))
        for here, there in ((self.first, self.second), (self.second, self.first)):
            meets = fork[here] & ~fork[there]
            np.maximum.at(reach, branch[there[meets]], self.radius[here[meets]])
        stays = ~(open_ended & (size <= SPUR * reach))[branch] | fork
        return (
            self if stays.all() else SkeletonGraph(self.rows[stays], self.columns[stays], self.radius[stays])
        )

    def averaged(self, values: Values, *, over: Bool[np.ndarray, " n"], rounds: int) -> Values:
        """The mean of the values of the nodes `over` about each node along the graph; where none of them is
        near, its own value."""
        near = self.spread(np.stack((np.where(over, values, 0.0), over), 1), rounds=rounds)
        return np.where(near[:, 1] > 0, near[:, 0] / np.maximum(near[:, 1], 1e-300), values)

    def spread(self, values: Float64[np.ndarray, "n k"], *, rounds: int) -> Float64[np.ndarray, "n k"]:
        """The values, each time the mean of the node's own and its neighbours'."""
        return self._spread(values, rounds=rounds, fixed=np.zeros(len(values), bool))

    def smoothed(self, points: Points, *, rounds: int) -> Points:
        """`spread` of points, but that the ends stay where they are."""
        return self._spread(points, rounds=rounds, fixed=self.degree <= 1)

    def _spread(
        self, values: Float64[np.ndarray, "n k"], *, rounds: int, fixed: Bool[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "n k"]:
        beside = self._beside
        spread = _averages(values.astype(np.float64), beside.indptr, beside.indices, rounds, fixed)
        return np.asarray(spread)

    def lengths(self, points: Points) -> Values:
        """Half the lengths of each node's steps, when the nodes lie at `points`."""
        step = np.hypot(*(points[self.second] - points[self.first]).T)
        return np.asarray(self._at_both_ends(step) / 2)

    def directions(self, points: Points, *, rounds: int) -> Points:
        """The unit vector (x, y) along the line at each node, either way round; of single nodes along x."""
        x, y = (points[self.second] - points[self.first]).T
        # a direction and its opposite have the same square
        squared = (x + 1j * y) ** 2 / np.maximum(np.hypot(x, y), 1e-9)
        total = self._at_both_ends(squared.real) + 1j * self._at_both_ends(squared.imag)
        for _ in range(rounds):
            total = total + self._beside @ total
        along = np.sqrt(np.where(total == 0, 1, total))
        along /= np.abs(along)
        return np.stack((along.real, along.imag), 1)

    def away_from_forks(self) -> Bool[np.ndarray, " n"]:
        """Which nodes lie so far from forks that the crack about them is one alone."""
        from scipy.spatial import KDTree

        fork = self.degree >= 3
        if not fork.any():
            return ~fork
        distance, nearest = KDTree(self.points[fork]).query(self.points)
        return np.asarray(distance > CROSSING * self.radius[fork][nearest])

    def _at_both_ends(self, of_steps: Values) -> Values:
        count = len(self.rows)
        return np.bincount(self.first, of_steps, count) + np.bincount(self.second, of_steps, count)


@njit(nogil=True, cache=True)
def _averages(
    values: Float64[np.ndarray, "n k"],
    first: Int32[np.ndarray, " rows"],
    beside: Int32[np.ndarray, " m"],
    rounds: int,
    fixed: Bool[np.ndarray, " n"],
) -> Float64[np.ndarray, "n k"]:
    """The mean of each node's values and its neighbours', `rounds` times; those of `fixed` nodes stay. The
    neighbours of a node i are `beside[first[i] : first[i + 1]]`."""
    for _ in range(rounds):
        means = values.copy()
        for node in range(len(values)):
            if not fixed[node]:
                neighbours = beside[first[node] : first[node + 1]]
                for column in range(values.shape[1]):
                    for neighbour in neighbours:
                        means[node, column] += values[neighbour, column]
                    means[node, column] /= 1 + len(neighbours)
        values = means
    return values


def _steps(rows: Nodes, columns: Nodes) -> tuple[Nodes, Nodes]:
    wide = int(columns.max(initial=0)) + 3
    key, own = rows * wide + columns, np.arange(len(rows))

    def at(offset: int) -> tuple[Nodes, Bool[np.ndarray, " n"]]:
        place = np.minimum(np.searchsorted(key, key + offset), max(len(key) - 1, 0))
        return place, np.asarray(key[place] == key + offset)

    (right, to_right), (below, to_below), (_, to_left) = at(1), at(wide), at(-1)
    (falling, falls), (rising, rises) = at(wide + 1), at(wide - 1)
    falls, rises = falls & ~to_right & ~to_below, rises & ~to_left & ~to_below
    pairs = ((right, to_right), (below, to_below), (falling, falls), (rising, rises))
    starts, stops = zip(*((own[there], to[there]) for to, there in pairs), strict=True)
    return np.concatenate(starts), np.concatenate(stops)
