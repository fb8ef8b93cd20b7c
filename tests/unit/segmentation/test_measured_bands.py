"""Bands of known width and axis, at all angles: through the image, ended inside it, bent and branching."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from fissura.segmentation.crack_measures import CrackMeasures, measure, measure_map

SIZE = 160
MIDDLE = (SIZE - 1) / 2
FAR = 300.0  # pixels: beyond the image
Y, X = np.mgrid[:SIZE, :SIZE].astype(float)
BETWEEN = (0.37, 0.21)  # no axis lies on the centres of pixels
WIDTHS = (1.5, 3, 8, 20, 32)
DEGREES = (0, 3, 13, 22.5, 40, 60, 75, 90, 107, 130)


def heading(degrees: float) -> np.ndarray:
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def bar(*, degrees: float, width: float, middle: Sequence[float], ends: tuple[float, float]) -> np.ndarray:
    """How far each pixel is inside a rectangle about an axis that reaches from `ends[0]` to `ends[1]`."""
    (dx, dy), (x, y) = heading(degrees), middle
    along, across = (X - x) * dx + (Y - y) * dy, (Y - y) * dx - (X - x) * dy
    return np.asarray(np.minimum(width / 2 - abs(across), np.minimum(along - ends[0], ends[1] - along)))


def inside(*, degrees: float, middle: Sequence[float], ends: tuple[float, float]) -> float:
    """The length of an axis within the image's outline."""
    steps = np.linspace(*ends, 20_000)
    points = np.add(middle, steps[:, None] * heading(degrees))
    return float((ends[1] - ends[0]) * ((points > -0.5) & (points < SIZE - 0.5)).all(axis=1).mean())


def both_ways(depth: np.ndarray) -> tuple[CrackMeasures, CrackMeasures]:
    """Measured by its mask, and by its map: the share of each pixel that is covered."""
    covered = np.asarray(np.rint(255 * np.clip(depth + 0.5, 0, 1)), np.uint8)
    return measure(depth >= 0, mm_per_pixel=None), measure_map(covered, threshold=0.5, mm_per_pixel=None)


def holds(found: CrackMeasures, *, width: float, length: float) -> None:
    """Length and widths within 5 % or half a pixel, whichever is larger."""
    (crack,) = found.listed
    assert crack.length_px == pytest.approx(length, abs=max(0.5, 0.05 * length))
    for value in (crack.mean_width_px, crack.width_95_px, crack.largest_width_px):
        assert value == pytest.approx(width, abs=max(0.501, 0.05 * width))


def band(*, degrees: float, width: float, aside: float, ends: tuple[float, float]) -> None:
    middle = np.add((MIDDLE, MIDDLE), BETWEEN) + aside * heading(degrees + 90)
    length = inside(degrees=degrees, middle=middle, ends=ends)
    for found in both_ways(bar(degrees=degrees, width=width, middle=middle, ends=ends)):
        holds(found, width=width, length=length)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("degrees", DEGREES)
class TestABand:
    @pytest.mark.parametrize("aside", [0, 20])
    def test_through_the_image_is_as_wide_as_it_is_and_as_long_as_its_axis_is_inside(
        self, degrees: float, width: float, aside: float
    ) -> None:
        band(degrees=degrees, width=width, aside=aside, ends=(-FAR, FAR))

    def test_that_ends_flat_inside_and_crosses_one_edge_is_so_too(self, degrees: float, width: float) -> None:
        band(degrees=degrees, width=width, aside=5, ends=(-FAR, 15))


@pytest.mark.parametrize("width", [8, 20, 32])
@pytest.mark.parametrize("degrees", DEGREES)
def test_a_free_bar_is_as_wide_and_as_long_as_it_is(degrees: float, width: float) -> None:
    band(degrees=degrees, width=width, aside=0, ends=(-55, 55))


@pytest.mark.parametrize("width", [3, 8, 20])
@pytest.mark.parametrize("degrees", [0, 20, 45, 100])
def test_cracks_that_cross_one_another_and_the_edges_are_as_wide_as_each_is(
    degrees: float, width: float
) -> None:
    middle, ends = (MIDDLE + 0.3, MIDDLE - 4.2), (-FAR, FAR)
    axes = (degrees, degrees + 70)
    depth = np.maximum(*(bar(degrees=axis, width=width, middle=middle, ends=ends) for axis in axes))
    length = sum(inside(degrees=axis, middle=middle, ends=ends) for axis in axes)
    for found in both_ways(depth):
        holds(found, width=width, length=length)


@pytest.mark.parametrize("width", [3, 8, 20])
@pytest.mark.parametrize("middle", [(80.3, -40.2), (180.1, 60.4), (79.7, 220.6)])
def test_a_bent_crack_through_two_edges_has_its_length_and_width(
    middle: tuple[float, float], width: float
) -> None:
    radius = 120.0
    turns = np.linspace(0, 2 * math.pi, 100_000)
    x, y = middle[0] + radius * np.cos(turns), middle[1] + radius * np.sin(turns)
    within = (x > -0.5) & (x < SIZE - 0.5) & (y > -0.5) & (y < SIZE - 0.5)
    for found in both_ways(width / 2 - abs(np.hypot(X - middle[0], Y - middle[1]) - radius)):
        holds(found, width=width, length=2 * math.pi * radius * within.mean())
