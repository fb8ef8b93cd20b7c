"""Crack geometry: exactly known centrelines, widths and topology, and the mask that they define."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64

GRID = 64  # points and widths are multiples of 1/64 px: exact in JSON, and the same on every machine
STEP = 3.0  # px: the longest segment
ATTEMPTS = 40  # positions tried for a crack or a branch before it is left out
CLEARANCE = 2  # px of background at least between two cracks

Point = Float64[np.ndarray, "2"]
Points = Float64[np.ndarray, "_ 2"]
Generator = np.random.Generator


@dataclass(frozen=True)
class Stroke:
    """A centreline: `points` [n 2] are (x, y) in pixels, pixel centres being whole numbers; `widths` [n-1] in
    pixels, one a segment."""

    points: Points
    widths: Float64[np.ndarray, " _"]

    def plain(self) -> dict[str, Any]:
        """The stroke as JSON types, exactly."""
        return {"points": self.points.tolist(), "widths": self.widths.tolist()}


@dataclass(frozen=True)
class Crack:
    """A tree of strokes: the first is the trunk, each other begins at an inner point of an earlier one."""

    strokes: tuple[Stroke, ...]


@dataclass(frozen=True)
class Topology:
    """Counts of the graph of all centrelines: it has no loops, and three edges meet at every junction."""

    components: int
    junctions: int
    ends: int
    branches: int  # edges between junctions and ends

    @classmethod
    def of(cls, cracks: tuple[Crack, ...]) -> "Topology":
        """The topology of an image's cracks."""
        components, strokes = len(cracks), sum(len(crack.strokes) for crack in cracks)
        junctions = strokes - components
        return cls(components, junctions, ends=components + strokes, branches=strokes + junctions)


def depth(
    strokes: tuple[Stroke, ...], *, height: int, width: int, halo: float = 1.5
) -> Float64[np.ndarray, "h w"]:
    """The depth of each pixel centre inside the strokes, in pixels: the largest `w/2 - d` over all segments,
    `w` the segment's width and `d` the exact Euclidean distance to it. Exact down to `-halo`, not below.

    The mask of the strokes is `depth >= 0`.
    """
    field = np.full((height, width), -np.inf)
    for stroke in strokes:
        start, along = stroke.points[:-1], np.diff(stroke.points, axis=0)
        reach = stroke.widths.max() / 2 + halo
        low = np.floor(np.minimum(start, start + along) - reach).astype(np.int64)
        window = np.arange(int(np.ceil(np.abs(along).max() + 2 * reach)) + 2)
        x, y = low[:, 0, None, None] + window, low[:, 1, None, None] + window[:, None]
        from_x, from_y = x - start[:, 0, None, None], y - start[:, 1, None, None]
        along_x, along_y = along[:, 0, None, None], along[:, 1, None, None]
        share = np.clip((from_x * along_x + from_y * along_y) / (along_x**2 + along_y**2), 0, 1)
        distance = np.hypot(from_x - share * along_x, from_y - share * along_y)
        x, y = np.broadcast_arrays(x, y)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.maximum.at(field, (y[inside], x[inside]), (stroke.widths[:, None, None] / 2 - distance)[inside])
    return field


class Growth:
    """Grows one image's cracks; keeps only strokes with which the mask has the centrelines' topology."""

    def __init__(self, *, height: int, width: int, crack_width: tuple[float, float], rng: Generator) -> None:
        self._height, self._width, self._crack_width, self._rng = height, width, crack_width, rng
        self._mask: Bool[np.ndarray, "h w"] = np.zeros((height, width), dtype=bool)
        self._cracks: list[list[Stroke]] = []

    @property
    def cracks(self) -> tuple[Crack, ...]:
        """The cracks that have grown so far."""
        return tuple(Crack(tuple(strokes)) for strokes in self._cracks)

    def crack(self) -> None:
        """Adds one crack without branches, if there is room for it."""
        size, rng = min(self._height, self._width), self._rng
        for attempt in range(ATTEMPTS):
            # the first crack must succeed: each attempt is straighter, and a straight line has no loop
            roughness = 0.22 if self._cracks else 0.22 * (1 - attempt / (ATTEMPTS - 1))
            middle = rng.uniform(0.15, 0.85, 2) * (self._width, self._height)
            half = _heading(rng.uniform(0, np.pi)) * size * rng.uniform(0.25, 0.9)
            path = _wander(middle - half, middle + half, roughness=roughness, rng=rng)
            path = _grid(_longest_inside(path, height=self._height, width=self._width))
            stroke = self._stroke(path, thickest=rng.uniform(*self._crack_width))
            if _length(path) < 0.3 * size:
                continue
            mask = self._rasterise(stroke)
            if not (_dilate(mask, radius=CLEARANCE) & self._mask).any() and not _has_holes(mask):
                self._cracks.append([stroke])
                self._mask |= mask
                return

    def branch(self) -> None:
        """Adds a branch to the last crack, if there is room for it."""
        size, rng, crack = min(self._height, self._width), self._rng, self._cracks[-1]
        for _ in range(ATTEMPTS):
            parent = crack[rng.integers(len(crack))]
            if len(parent.points) < 8:
                continue
            at = int(rng.integers(2, len(parent.points) - 2))
            direction = parent.points[at + 2] - parent.points[at - 2]
            angle = np.arctan2(direction[1], direction[0]) + rng.choice((-1, 1)) * rng.uniform(0.5, 1.3)
            start, thickest = parent.points[at], float(parent.widths[at])
            end = start + _heading(angle + np.pi * rng.integers(2)) * size * rng.uniform(0.2, 0.55)
            path = _wander(start, end, roughness=0.2, rng=rng)
            path = _grid(_inside_from_start(path, height=self._height, width=self._width))
            taken = [other.points[0] for other in crack[1:]]
            near = 2.5 * thickest + 6
            crowded = any(np.hypot(*(start - other)) < near for other in taken)
            if crowded or len(path) < 2 or np.hypot(*(path[-1] - start)) < 1.5 * near:
                continue
            stroke = self._stroke(path, thickest=0.8 * thickest)
            mask = self._rasterise(stroke)
            together = self._mask | mask
            y, x = np.nonzero(_dilate(mask, radius=CLEARANCE) & self._mask)
            parts = cv2.connectedComponents(together.astype(np.uint8), connectivity=8)[0] - 1
            stays_near = bool((np.hypot(x - start[0], y - start[1]) <= near).all())
            if stays_near and parts == len(self._cracks) and not _has_holes(together):
                crack.append(stroke)
                self._mask = together
                return

    def _stroke(self, path: Points, *, thickest: float) -> Stroke:
        """A stroke whose width varies smoothly along the path and shrinks towards both ends."""
        low, high = self._crack_width
        segments = len(path) - 1
        at = np.linspace(0, 1, max(segments, 1))
        knots = np.linspace(0, 1, max(segments // 4, 2))
        profile = np.interp(at, knots, self._rng.uniform(0.7, 1, len(knots)))
        ends = np.interp(at, (0, 0.2, 0.8, 1), (0.6, 1, 1, 0.6))
        return Stroke(path, np.clip(_grid(thickest * profile * ends), low, high)[:segments])

    def _rasterise(self, stroke: Stroke) -> Bool[np.ndarray, "h w"]:
        return depth((stroke,), height=self._height, width=self._width) >= 0


def _wander(start: Point, end: Point, *, roughness: float, rng: Generator) -> Points:
    """A fractal line from `start` to `end` by midpoint displacement; `roughness` is the largest shift of a
    midpoint as a share of its segment's length."""
    points = np.stack((start, end))
    while True:
        along = np.diff(points, axis=0)
        if np.hypot(along[:, 0], along[:, 1]).max() <= STEP:
            return points
        normal = along[:, ::-1] * (1, -1)
        middle = points[:-1] + along / 2 + normal * rng.uniform(-roughness, roughness, (len(along), 1))
        joined = np.empty((len(points) + len(middle), 2))
        joined[::2], joined[1::2] = points, middle
        points = joined


def _heading(angle: float) -> Point:
    return np.array((np.cos(angle), np.sin(angle)))


def _grid(values: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Rounds to multiples of 1/64; keeps one of equal neighbouring points."""
    rounded = np.round(values * GRID) / GRID
    if rounded.ndim == 1 or len(rounded) < 2:
        return rounded
    return np.asarray(rounded[np.append(True, np.any(np.diff(rounded, axis=0) != 0, axis=1))])


def _length(points: Points) -> float:
    return float(np.hypot(*np.diff(points, axis=0).T).sum())


def _inside(points: Points, *, height: int, width: int) -> Bool[np.ndarray, " _"]:
    return np.asarray(np.all((points >= 0) & (points <= (width - 1, height - 1)), axis=1))


def _inside_from_start(points: Points, *, height: int, width: int) -> Points:
    """The line from its first point, which is inside, to where it first meets the border."""
    outside = np.nonzero(~_inside(points, height=height, width=width))[0]
    if not len(outside):
        return points
    last, beyond = points[outside[0] - 1], points[outside[0]]
    step = beyond - last
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(step > 0, (np.array((width - 1, height - 1)) - last) / step, -last / step)
    share = np.where(step != 0, shares, np.inf).min()
    border = np.clip(last + share * step, 0, (width - 1, height - 1))
    return np.vstack((points[: outside[0]], border))


def _longest_inside(points: Points, *, height: int, width: int) -> Points:
    """The longest run of the line within the image, out to the borders that it crosses; perhaps empty."""
    inside = _inside(points, height=height, width=width)
    edges = np.diff(np.concatenate(((False,), inside, (False,))).astype(np.int8))
    starts, stops = np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0]
    if not len(starts):
        return points[:0]
    longest = int(np.argmax(stops - starts))
    start, stop = int(starts[longest]), int(stops[longest])
    forward = _inside_from_start(points[start : stop + 1], height=height, width=width)
    if start == 0:
        return forward
    entry = _inside_from_start(points[[start, start - 1]], height=height, width=width)[-1]
    return np.vstack((entry, forward))


def _dilate(mask: Bool[np.ndarray, "h w"], *, radius: int) -> Bool[np.ndarray, "h w"]:
    square = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), square) > 0)


def _has_holes(mask: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the mask alone encloses some background."""
    count, labels = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    border = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    return bool(np.count_nonzero(np.unique(border)) < count - 1)
