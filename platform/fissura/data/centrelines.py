"""Centrelines of cracks: where they run, how long each piece of them is, and how wide the crack is across it.

A skeleton is a graph of pixels. Its spurs are removed, its staircases smoothed, the ends of the crack that it
misses added, and chords across it measured to the crack's edge, between the pixels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from fissura.data.chords import chord, chords, nearby, to_edge
from fissura.data.skeleton_ends import FARTHEST
from fissura.data.skeleton_graph import SkeletonGraph
from fissura.data.thinning import thinned

Plane = UInt8[np.ndarray, "h w"]
Values = Float64[np.ndarray, " n"]
Points = Float64[np.ndarray, "n 2"]

MOST_WORK = 2**24  # pixels that thinning removes: about ten seconds
NEAR = 16  # pixels around a node that are checked one by one
# rounds of averaging with the neighbours: n of them smooth over about 0.8 sqrt(n) pixels along the line
STAIRS, DIRECTION, WIDTH = 1, 6, 20
ROUGH, MOST_NODES = (8, 32, 128), 2**20
# where the chords before a crack's tip are measured, and their mean at a round and at a flat end, in widths
BEFORE_TIP, ROUND_END, FLAT_END = (1 / 16, 3 / 16), 0.8, 1.0
THIN = 3.0  # pixels: a narrower crack does not show whether its end is round


@dataclass(frozen=True)
class Centrelines:
    """The centrelines in an image, a row a node.

    rows, columns: of the node's pixel. points: (x, y) of the node between the pixels, pixel centres being
    whole numbers. length: of the part of the centreline nearest to it, in pixels; at an end corrected by what
    the skeleton misses of the crack or has too much (then it may be below 0). width: of the crack there, in
    pixels. alone: False near a fork, where the width is that of two cracks together.
    """

    rows: Int64[np.ndarray, " n"]
    columns: Int64[np.ndarray, " n"]
    points: Points
    length: Values
    width: Values
    alone: Bool[np.ndarray, " n"]


def centrelines(plane: Plane, *, level: float) -> Centrelines | None:
    """The centrelines of all that is at least `level` in `plane`: a map of probabilities, or a mask of 0 and
    1 at level 0.5. None where thinning would take long: most of a large image is crack.

    Errors over widths of 1 to 20 pixels and all angles. Straight and wavy lines: 3 % of the length; a fifth
    of a pixel of the width from a map, half a pixel from a mask, whose lines may have a row more or less than
    they were drawn with (0.7 along diagonals). Rough lines: 5 % of the length, and the largest width may be
    10 % too large, see `_roughness`. Where wide lines cross at 30 degrees or less, the length may be 13 %
    short and the largest width that of both. A blob's length means nothing.
    """
    mask = np.asarray(plane >= level, dtype=np.uint8)
    skeleton = thinned(mask, most=MOST_WORK)
    if skeleton is None:
        return None
    rows, columns = skeleton
    graph = SkeletonGraph(rows, columns, _depths(mask, rows, columns)).without_spurs()
    graph = graph.trimmed(_to_border(mask, graph))
    del mask
    points, alone = graph.smoothed(graph.points, rounds=STAIRS), graph.away_from_forks()
    along = graph.directions(points, rounds=DIRECTION)
    width = graph.averaged(_widths(plane, level, graph, along), over=alone, rounds=WIDTH)
    length = graph.lengths(points)
    rough = _roughness(graph, width, length)
    length = length + _beyond_ends(plane, level, graph, points, width)
    # a chord includes finer roughness, about half of which is not width
    return Centrelines(graph.rows, graph.columns, points, rough * length, width / np.sqrt(rough), alone)


def _depths(mask: Plane, rows: Int64[np.ndarray, " n"], columns: Int64[np.ndarray, " n"]) -> Values:
    """The distance of some pixels of a mask to the background or the image's border, in pixels."""
    import cv2

    padded = np.pad(mask, 1)
    depths = nearby(padded, rows + 1, columns + 1, NEAR)
    if (depths > NEAR).any():  # cheaper for wide cracks
        inside = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
        depths = inside[rows + 1, columns + 1]
    return np.asarray(depths, dtype=np.float64)


def _to_border(mask: Plane, graph: SkeletonGraph) -> Values:
    """The distance of each node to the nearest pixel beyond the image."""
    height, width = mask.shape
    across = np.minimum(graph.rows + 1, height - graph.rows)
    along = np.minimum(graph.columns + 1, width - graph.columns)
    return np.asarray(np.minimum(across, along), dtype=np.float64)


def _widths(plane: Plane, level: float, graph: SkeletonGraph, along: Points) -> Values:
    points = graph.points
    # a chord through a bend may be longer than the widest disc in the crack
    most = 2 * graph.radius + 0.25
    width = chords(plane, level, points, along, graph.radius, most)
    # a speck has no direction
    single = graph.degree == 0
    within = graph.radius[single]
    sides = [
        chord(plane, level, points[single], side, within, most[single])
        for side in (along[single], np.ascontiguousarray(along[single][:, ::-1]))
    ]
    width[single] = np.minimum(*sides)
    return np.asarray(np.minimum(width, most))


def _beyond_ends(plane: Plane, level: float, graph: SkeletonGraph, points: Points, width: Values) -> Values:
    """How far the centreline continues beyond each end of the skeleton, 0 elsewhere: to the crack's tip where
    it ends flat or at the image's border, else to half a width before it, the middle of its round end."""
    beyond: Values = np.zeros(len(width))
    ends = np.flatnonzero(graph.degree == 1)
    start, wide, within = points[ends], np.maximum(width[ends], 1), graph.radius[ends]
    outwards = graph.outwards(points, ends)
    zero = np.zeros(len(ends))
    reach = to_edge(plane, level, start, outwards, zero, FARTHEST * within + 2)
    across, most = np.stack((-outwards[:, 1], outwards[:, 0]), 1), 3 * within + 2
    near_tip = [start + (reach - share * wide)[:, None] * outwards for share in BEFORE_TIP]
    ending = [chord(plane, level, points, across, zero, most) for points in near_tip]
    share = np.mean(ending, axis=0) / wide
    flat = np.where(wide < THIN, 0, np.clip((share - ROUND_END) / (FLAT_END - ROUND_END), 0, 1))
    tip = start + reach[:, None] * outwards
    cut = ((tip < 0) | (tip > np.array(plane.shape[::-1]) - 1)).any(axis=1)
    beyond[ends] = reach - (1 - np.where(cut, 1, flat)) * wide / 2
    return beyond


def _roughness(graph: SkeletonGraph, width: Values, length: Values) -> Values:
    """How many times longer each node's crack is than its smoothed skeleton, 1 to 1.08.

    A rough line is longer the finer it is measured (Mandelbrot 1967, Science 156), and detail finer than the
    crack's width is filled up. Its length shrinks equally each time that it is smoothed over twice the
    distance; a wave's four times as much. So `rough` is the share of the length in an octave of roughness,
    without a wave's loss. How much longer that makes a crack was fitted to synthetic ones of known length.
    """
    if len(width) > MOST_NODES:
        return np.ones(len(width))
    part, points = graph.part, graph.points
    totals, done = [], 0
    for rounds in ROUGH:
        points, done = graph.smoothed(points, rounds=rounds - done), rounds
        totals.append(np.bincount(part, graph.lengths(points)))
    whole = np.maximum(np.bincount(part, length), 1e-9)
    fine, middle, coarse = (total / whole for total in totals)
    rough = (4 * (fine - middle) - (middle - coarse)) / 3
    wide = np.clip(np.bincount(part, width * length) / whole, 1, 20)
    # a short crack shows too little
    seen = np.clip(rough / (0.0165 - 0.0004 * wide), 0, 1) * np.clip(whole / 80 - 0.5, 0, 1)
    return np.asarray((1 + seen * (0.03 + 0.0025 * wide))[part])
