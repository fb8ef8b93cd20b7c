"""Measures of cracks: known geometry at all angles, from masks and from maps, and synthetic cracks."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csgraph

from fissura.core.errors import DataError
from fissura.data import centrelines as centreline_module
from fissura.data.chords import nearby
from fissura.data.skeleton_graph import SkeletonGraph
from fissura.data.synthetic.cracks import Stroke, depth
from fissura.data.synthetic.scene import SyntheticSpec, draw
from fissura.data.thinning import _removable, thinned
from fissura.segmentation.crack_measures import CrackMeasures, measure, measure_map

LENGTH = 150


def stroke(*, degrees: float, width: float, offset: tuple[float, float] = (0.0, 0.0)) -> Stroke:
    angle = math.radians(degrees)
    half = LENGTH / 2 * np.array([math.cos(angle), math.sin(angle)])
    middle = 100 + np.array(offset)
    return Stroke(np.array([middle - half, middle + half]), np.array([width]))


def mask_of(*strokes: Stroke, size: int = 201) -> np.ndarray:
    """All pixels whose centres lie within half of the width of a stroke."""
    return np.asarray(depth(strokes, height=size, width=size) >= 0)


def map_of(*strokes: Stroke, size: int = 201) -> np.ndarray:
    """The share of each pixel that the strokes cover, times 255."""
    inside = depth(strokes, height=size, width=size)
    return np.asarray(np.rint(255 * np.clip(inside + 0.5, 0, 1)), np.uint8)


def wave(*, width: float, period: float, height: float) -> tuple[Stroke, float]:
    """A sine and its length."""
    x = np.linspace(0, 160, 800)
    points = np.stack((20 + x, 100 + height * np.sin(2 * np.pi * x / period)), 1)
    return Stroke(points, np.full(len(x) - 1, width)), float(np.hypot(*np.diff(points, axis=0).T).sum())


def allowed(width: float) -> float:
    return max(0.5, 0.05 * width)


def from_map(probability: np.ndarray) -> CrackMeasures:
    return measure_map(probability, threshold=0.5, mm_per_pixel=None)


@pytest.mark.parametrize("width", [1, 1.5, 2, 3, 4, 6, 10, 14, 20])
@pytest.mark.parametrize("degrees", [0, 10, 22.5, 45, 67.5, 90, 130])
class TestALine:
    def test_has_its_length_and_widths_by_its_map(self, degrees: float, width: float) -> None:
        # a line one pixel wide between two rows has no pixel above a half
        shift = (0.13, 0.07) if width < 2 else (0.4, 0.3)
        found = from_map(map_of(stroke(degrees=degrees, width=width, offset=shift)))
        (crack,) = found.listed
        assert crack.length_px == pytest.approx(LENGTH, rel=0.05)
        for value in (crack.mean_width_px, crack.width_95_px, crack.largest_width_px):
            assert value == pytest.approx(width, abs=allowed(width))
        assert crack.orientation_degrees is not None
        turned = abs(crack.orientation_degrees - (-degrees % 180))
        assert min(turned, 180 - turned) < 1  # y grows downwards, and the angle is counter-clockwise

    def test_has_its_length_and_widths_by_its_mask(self, degrees: float, width: float) -> None:
        found = measure(mask_of(stroke(degrees=degrees, width=width, offset=(0.4, 0.3))), mm_per_pixel=None)
        # pixels of diagonals lie in rows 0.7 pixels apart: more a mask does not hold
        most = allowed(width) + 0.22 * (degrees == 45)
        assert found.length_px == pytest.approx(LENGTH, rel=0.05)
        assert found.mean_width_px == pytest.approx(width, abs=most)
        assert found.largest_width_px == pytest.approx(width, abs=most)


@settings(max_examples=40, deadline=None)
@given(
    width=st.floats(2, 20),
    degrees=st.floats(0, 180),
    offset=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_line_of_any_width_angle_and_place_is_measured_by_its_map(
    width: float, degrees: float, offset: tuple[float, float]
) -> None:
    found = from_map(map_of(stroke(degrees=degrees, width=width, offset=offset)))
    assert found.length_px == pytest.approx(LENGTH, rel=0.05)
    assert found.mean_width_px == pytest.approx(width, abs=allowed(width))
    assert found.largest_width_px == pytest.approx(width, abs=allowed(width))


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize(("period", "height"), [(40, 6), (80, 15), (160, 30)])
def test_a_curved_crack_has_its_length_and_width(width: float, period: float, height: float) -> None:
    line, length = wave(width=width, period=period, height=height)
    for found in (measure(mask_of(line), mm_per_pixel=None), from_map(map_of(line))):
        assert found.length_px == pytest.approx(length, rel=0.05)
        assert found.mean_width_px == pytest.approx(width, abs=0.5)
        assert found.largest_width_px == pytest.approx(width, abs=0.5)


@pytest.mark.parametrize("width", [2, 5, 10])
@pytest.mark.parametrize("angle", [40, 60, 90])
def test_cracks_that_cross_are_as_wide_as_each_is(width: float, angle: float) -> None:
    lines = [stroke(degrees=degrees, width=width, offset=(0.3, 0.2)) for degrees in (15, 15 + angle)]
    for found in (measure(mask_of(*lines), mm_per_pixel=None), from_map(map_of(*lines))):
        assert found.cracks == 1
        assert found.length_px == pytest.approx(2 * LENGTH, rel=0.05)
        assert found.mean_width_px == pytest.approx(width, abs=allowed(width))
        assert found.largest_width_px == pytest.approx(width, abs=allowed(width))


@pytest.mark.parametrize("width", [1, 2, 4, 6, 10])
def test_a_straight_band_is_exact_and_goes_on_to_the_border(width: int) -> None:
    mask = np.zeros((60, 200), bool)
    mask[20 : 20 + width] = True
    for turned in (mask, mask.T):
        found = measure(turned, mm_per_pixel=None)
        assert found.largest_width_px == pytest.approx(width)
        assert found.length_px == pytest.approx(200, abs=1)


@pytest.mark.parametrize("length", [64, 256, 1000])
@pytest.mark.parametrize("width", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("away", [0, 1, 2, 5])
def test_a_crack_along_the_border_has_its_length(away: int, width: int, length: int) -> None:
    mask = np.zeros((40, length), bool)
    mask[away : away + width] = True
    for turns in range(4):
        turned = np.ascontiguousarray(np.rot90(mask, turns))
        assert measure(turned, mm_per_pixel=None).length_px == pytest.approx(length, abs=1)


@pytest.mark.parametrize("height", [1, 2, 3])
def test_an_image_that_is_one_crack_is_as_long_as_it_is(height: int) -> None:
    assert measure(np.ones((height, 77), bool), mm_per_pixel=None).length_px == pytest.approx(77, abs=1)


@pytest.mark.parametrize("width", [5, 10, 20])
def test_a_rectangle_is_as_long_as_it_is(width: int) -> None:
    mask = np.zeros((60, 200), bool)
    mask[20 : 20 + width, 30:160] = True
    assert measure(mask, mm_per_pixel=None).length_px == pytest.approx(130, abs=1)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("widths", [(1.5, 5), (2, 12)])
def test_synthetic_cracks_have_the_length_and_the_widths_that_they_were_drawn_with(
    index: int, widths: tuple[float, float]
) -> None:
    spec = SyntheticSpec(height=512, width=512, crack_width=widths, clean=0, train=8)
    image = draw(spec, split="train", index=index)
    strokes = [one for crack in image.cracks for one in crack.strokes]
    steps = [np.hypot(*np.diff(one.points, axis=0).T) for one in strokes]
    length = sum(step.sum() for step in steps)
    mean = sum((step * one.widths).sum() for step, one in zip(steps, strokes, strict=True)) / length
    largest = max(one.widths.max() for one in strokes)
    for found in (measure(image.mask, mm_per_pixel=None), from_map(map_of(*strokes, size=512))):
        assert found.length_px == pytest.approx(length, rel=0.05)
        assert found.mean_width_px == pytest.approx(mean, abs=allowed(mean))
        assert found.largest_width_px == pytest.approx(largest, abs=allowed(largest))


def literally_thinned(mask: np.ndarray) -> np.ndarray:
    """Guo and Hall's thinning over the whole image in each pass."""
    image, passes, quiet = np.pad(mask, 1).astype(np.uint8), 0, 0
    around = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    while quiet < 2:
        code = np.zeros_like(image)
        for bit, (row, column) in enumerate(around):
            code |= np.roll(image, (-row, -column), (0, 1)) << bit
        going = (image > 0) & _removable()[passes % 2][code]
        image[going] = 0
        passes, quiet = passes + 1, 0 if going.any() else quiet + 1
    return image[1:-1, 1:-1]


MASKS = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.integers(0, 1))


@given(mask=MASKS, grown=st.integers(1, 4))
def test_thinning_is_the_literal_one_and_leaves_each_crack_one_piece(mask: np.ndarray, grown: int) -> None:
    mask = np.asarray(cv2.dilate(mask, np.ones((grown, grown), np.uint8)))
    places = thinned(mask, most=10**9)
    assert places is not None
    skeleton = np.zeros_like(mask)
    skeleton[places] = 1
    assert np.array_equal(skeleton, literally_thinned(mask))
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    assert set(labels[places].tolist()) == set(range(1, count))
    assert cv2.connectedComponents(skeleton, connectivity=8)[0] == count


@settings(deadline=None)
@given(mask=MASKS)
def test_a_graph_of_pixels_is_walked_as_its_matrix_is_multiplied(mask: np.ndarray) -> None:
    rows, columns = np.nonzero(mask)
    graph = SkeletonGraph(rows, columns, np.ones(len(rows)))
    down, right = (np.abs(np.subtract.outer(places, places)) for places in (rows, columns))
    corners = mask[rows[:, None], columns] | mask[rows, columns[:, None]]
    beside = ((down + right == 1) | ((down == 1) & (right == 1) & (corners == 0))).astype(float)
    assert graph.degree.tolist() == beside.sum(axis=1).tolist()
    assert len(set(graph.part.tolist())) == csgraph.connected_components(beside)[0]
    mean = (beside + np.eye(len(rows))) / (1 + beside.sum(axis=1, keepdims=True))
    expected = mean @ mean @ mean @ graph.points
    np.testing.assert_allclose(graph.spread(graph.points, rounds=3), expected, atol=1e-12)


@settings(deadline=None)
@given(mask=MASKS, grown=st.integers(1, 9))
def test_the_distance_to_the_background_is_that_of_the_transform(mask: np.ndarray, grown: int) -> None:
    padded = np.pad(cv2.dilate(mask, np.ones((grown, grown), np.uint8)), 1)
    rows, columns = np.nonzero(padded)
    expected = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[rows, columns]
    found = nearby(padded, rows, columns, 4)
    assert ((found > 4) == (expected > 4)).all()
    np.testing.assert_array_equal(found[found <= 4], expected[found <= 4])


@given(mask=MASKS)
def test_every_mask_has_measures(mask: np.ndarray) -> None:
    found = measure(mask, mm_per_pixel=0.5)
    assert found.cracks == len(found.listed) or found.cracks > 100
    assert sum(crack.area_px for crack in found.listed) <= found.area_px == np.count_nonzero(mask)
    lengths = [crack.length_px or 0.0 for crack in found.listed]
    assert lengths == sorted(lengths, reverse=True)
    for crack in found.listed:
        left, top, width, height = crack.box
        assert crack.area_px <= np.count_nonzero(mask[top : top + height, left : left + width])
        assert (crack.mean_width_px is None) == (crack.length_px == 0)
        assert 0 < (crack.mean_width_px or 1) <= (crack.largest_width_px or 0) + 1e-9
        assert (crack.width_95_px or 0) <= (crack.largest_width_px or 0)


class TestTheTable:
    def test_holds_each_crack_the_longest_first(self) -> None:
        mask = np.zeros((80, 120), bool)
        mask[10, 5:45] = mask[70:74, 20:110] = True
        mask[30:60, 90:93] = True
        rows = measure(mask, mm_per_pixel=0.1).table()
        assert [row["box"] for row in rows] == [[20, 70, 90, 4], [5, 10, 40, 1], [90, 30, 3, 30]]
        assert [row["orientation_degrees"] for row in rows] == [0, 0, 90]
        assert [row["largest_width_px"] for row in rows] == [4, 1, 3]
        assert [row["largest_width_mm"] for row in rows] == pytest.approx([0.4, 0.1, 0.3])
        assert [row["area_px"] for row in rows] == [360, 40, 90]
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows

    def test_is_bounded_and_all_cracks_are_counted(self) -> None:
        mask = np.zeros((60, 60), bool)
        mask[::3, ::3] = True
        found = measure(mask, mm_per_pixel=None)
        assert (found.cracks, len(found.listed)) == (400, 100)


class TestCracks:
    def test_that_touch_by_a_corner_are_one(self) -> None:
        mask = np.zeros((20, 20), bool)
        mask[2, 2:8] = mask[3, 8:14] = mask[10, 2:8] = True
        assert measure(mask, mm_per_pixel=None).cracks == 2

    def test_whose_boxes_overlap_do_not_see_one_another(self) -> None:
        mask = np.zeros((300, 300), np.uint8)
        mask[10, 10:200] = mask[10:200, 10] = 1  # an angle
        mask[40:47, 40:100] = 1  # and a wide crack in its box
        found = measure(mask, mm_per_pixel=None)
        assert found.cracks == 2
        assert found.largest_width_px == 7
        assert found.length_px == pytest.approx(2 * 189 + 60, rel=0.01)


class TestUnits:
    MASK = mask_of(stroke(degrees=0, width=5))

    def test_follow_the_scale_once_for_lengths_and_twice_for_areas(self) -> None:
        found = measure(self.MASK, mm_per_pixel=0.2)
        assert found.mean_width_px is not None
        assert found.largest_width_px is not None
        assert found.length_px is not None
        assert found.mm_per_pixel == 0.2
        assert found.length_mm == pytest.approx(0.2 * found.length_px)
        assert found.area_mm2 == pytest.approx(0.04 * found.area_px)
        assert found.mean_width_mm == pytest.approx(0.2 * found.mean_width_px)
        assert found.largest_width_mm == pytest.approx(1.0)

    def test_in_mm_are_absent_without_a_scale_and_those_in_pixels_the_same(self) -> None:
        with_scale, without = (measure(self.MASK, mm_per_pixel=scale).plain() for scale in (0.2, None))
        in_mm = {key for key in without if "mm" in key}
        assert in_mm == {"mm_per_pixel", "area_mm2", "length_mm", "mean_width_mm", "largest_width_mm"}
        assert {without[key] for key in in_mm} == {None}
        assert {k: v for k, v in with_scale.items() if k not in in_mm}.items() <= without.items()

    @pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
    def test_need_a_scale_above_0(self, scale: float) -> None:
        with pytest.raises(DataError, match="above 0 mm a pixel: this one is"):
            measure(self.MASK, mm_per_pixel=scale)

    def test_are_json(self) -> None:
        plain = measure(self.MASK, mm_per_pixel=0.2).plain()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert {type(value) for value in plain.values()} == {int, float}


class TestAMask:
    def test_without_a_crack_has_no_widths(self) -> None:
        found = measure(np.zeros((20, 30), bool), mm_per_pixel=0.5)
        assert (found.share, found.cracks, found.area_px, found.length_px) == (0, 0, 0, 0)
        assert (found.area_mm2, found.length_mm, found.listed) == (0, 0, ())
        assert found.mean_width_px is found.largest_width_px is None
        assert found.mean_width_mm is found.largest_width_mm is None

    def test_of_specks_has_no_length_and_so_no_mean_width(self) -> None:
        mask = np.zeros((9, 9), np.uint8)
        mask[2, 2] = mask[6, 6] = 1
        found = measure(mask, mm_per_pixel=None)
        assert (found.cracks, found.area_px, found.length_px, found.largest_width_px) == (2, 2, 0, 1)
        assert found.mean_width_px is None

    def test_is_crack_wherever_it_is_not_0(self) -> None:
        mask = mask_of(stroke(degrees=30, width=4))
        expected = measure(mask, mm_per_pixel=None)
        for same in (mask.astype(np.uint8), mask * np.uint8(255)):
            assert measure(same, mm_per_pixel=None) == expected

    def test_that_is_all_crack_is_one(self) -> None:
        found = measure(np.ones((15, 21), bool), mm_per_pixel=None)
        assert (found.share, found.cracks, found.largest_width_px) == (1, 1, 15)


def test_a_map_of_two_levels_is_measured_as_its_mask() -> None:
    mask = mask_of(stroke(degrees=30, width=4))
    by_map, by_mask = from_map(mask * np.uint8(255)), measure(mask, mm_per_pixel=None)
    assert by_map.plain() == by_mask.plain()


def test_a_large_image_that_is_nearly_all_crack_has_no_length_and_takes_no_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(centreline_module, "MOST_WORK", 30_000)
    full = np.ones((200, 200), np.uint8)
    found = measure(full, mm_per_pixel=0.5)
    assert (found.length_px, found.length_mm, found.mean_width_px) == (None, None, None)
    assert found.area_px == 40_000
    assert found.largest_width_px == pytest.approx(199, abs=1)
    assert [(crack.box, crack.length_px) for crack in found.listed] == [((0, 0, 200, 200), None)]

    thin = np.zeros((200, 200), np.uint8)
    thin[100, 20:180] = 1
    assert measure(thin, mm_per_pixel=None).length_px == 159
