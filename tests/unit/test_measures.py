"""Measures of a crack mask: known geometry, synthetic cracks, and a literal walk over the skeleton."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import skeletonize

from fissura.core.errors import DataError
from fissura.data.labelled.severity import crack_width
from fissura.data.synthetic.cracks import Stroke, depth
from fissura.data.synthetic.scene import SyntheticSpec, draw
from fissura.engine import measures
from fissura.engine.measures import measure, skeleton_length

LENGTH = 200


def line(*, degrees: float, width: float) -> np.ndarray:
    """All pixels whose centres lie within half of `width` of a line `LENGTH` long."""
    angle = math.radians(degrees)
    half = LENGTH / 2 * np.array([math.cos(angle), math.sin(angle)])
    stroke = Stroke(np.array([150 - half, 150 + half]), np.array([width]))
    return np.asarray(depth((stroke,), height=301, width=301) >= 0)


def ring(*, radius: float, width: float) -> np.ndarray:
    y, x = np.mgrid[-100:101, -100:101]
    return np.asarray(np.abs(np.hypot(x, y) - radius) <= width / 2)


def walked(skeleton: np.ndarray) -> float:
    """The length of a skeleton by walking its graph pixel by pixel until no step is left."""
    pixels = {(int(y), int(x)) for y, x in np.argwhere(skeleton)}

    def steps(y: int, x: int) -> list[tuple[int, int]]:
        straight = {(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)} & pixels
        diagonal = {(y - 1, x - 1), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x + 1)} & pixels
        return [*straight, *((v, u) for v, u in diagonal if not {(v, x), (y, u)} & pixels)]

    length, taken = 0.0, set()
    for start in sorted(pixels):
        trail = [start]
        while trail:
            here = trail[-1]
            onward = [there for there in steps(*here) if frozenset({here, there}) not in taken]
            if not onward:
                trail.pop()
                continue
            taken.add(frozenset({here, onward[0]}))
            length += math.dist(here, onward[0])
            trail.append(onward[0])
    return length


MASKS = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.booleans())


@st.composite
def blots(draw: st.DrawFn) -> np.ndarray:
    """Thick random lines: masks whose skeletons have ends, junctions and loops."""
    mask = np.zeros((48, 64), np.uint8)
    point = st.tuples(st.integers(0, 63), st.integers(0, 47))
    for start, end, width in draw(st.lists(st.tuples(point, point, st.integers(1, 9)), max_size=5)):
        cv2.line(mask, start, end, 1, width)
    return mask


class TestAStraightLine:
    @pytest.mark.parametrize("turned", [False, True], ids=["0 degrees", "90 degrees"])
    def test_one_pixel_wide_is_measured_exactly_between_the_centres_of_its_ends(self, turned: bool) -> None:
        mask = np.zeros((20, 60), bool)
        mask[7, 5:45] = True
        found = measure(mask.T if turned else mask, mm_per_pixel=None)
        assert (found.length_px, found.area_px, found.largest_width_px, found.cracks) == (39, 40, 1, 1)
        assert found.mean_width_px == 40 / 39
        assert found.share == 40 / 1200

    @pytest.mark.parametrize("falling", [True, False])
    def test_along_a_diagonal_counts_sqrt_2_a_pixel(self, falling: bool) -> None:
        mask = np.eye(30, dtype=bool) if falling else np.eye(30, dtype=bool)[::-1]
        found = measure(mask, mm_per_pixel=None)
        assert found.length_px == pytest.approx(29 * math.sqrt(2))
        assert found.mean_width_px == pytest.approx(30 / 29 / math.sqrt(2))
        assert found.cracks == 1

    @pytest.mark.parametrize("width", [1, 3, 7])
    @pytest.mark.parametrize("degrees", [0, 45, 90])
    def test_has_its_length_and_widths_up_to_its_ends(self, degrees: int, width: int) -> None:
        found = measure(line(degrees=degrees, width=width), mm_per_pixel=None)
        assert LENGTH - width <= found.length_px <= LENGTH + 2  # the ends are round, and add to the length
        assert found.largest_width_px == pytest.approx(width, abs=0.01 if degrees != 45 else 1)
        thin = 1 / math.sqrt(2) if (degrees, width) == (45, 1) else width
        assert found.mean_width_px == pytest.approx(thin, rel=0.07 if degrees != 45 else 0.21)

    @pytest.mark.parametrize("width", [1, 3, 4, 7, 8])
    def test_with_square_ends_loses_at_most_half_its_width_at_each(self, width: int) -> None:
        mask = np.zeros((30, 130), bool)
        mask[10 : 10 + width, 15:115] = True
        for turned in (mask, mask.T):
            assert 100 - width <= measure(turned, mm_per_pixel=None).length_px <= 100

    @pytest.mark.parametrize("width", [1, 3, 7])
    def test_at_22_degrees_and_a_half_is_8_percent_too_long(self, width: int) -> None:
        length = measure(line(degrees=22.5, width=width), mm_per_pixel=None).length_px
        assert length == pytest.approx(1.082 * LENGTH, rel=0.012)


class TestAClosedLine:
    def test_of_horizontal_and_vertical_sides_is_exact_but_for_the_corners_that_are_cut(self) -> None:
        mask = np.zeros((40, 40), np.uint8)
        cv2.rectangle(mask, (5, 5), (35, 25), 1)
        length = measure(mask, mm_per_pixel=None).length_px
        assert length == pytest.approx(2 * 30 + 2 * 20 - 4 * (2 - math.sqrt(2)))

    def test_of_diagonals_is_exact(self) -> None:
        y, x = np.mgrid[-20:21, -20:21]
        assert skeleton_length(np.abs(x) + np.abs(y) == 15) == pytest.approx(4 * 15 * math.sqrt(2))

    @pytest.mark.parametrize("width", [1.5, 3, 7])
    def test_that_is_round_is_5_percent_too_long(self, width: float) -> None:
        found = measure(ring(radius=70, width=width), mm_per_pixel=None)
        # the mean over all directions of what steps of 45 degrees are too long: 8 / pi (sqrt(2) - 1)
        assert found.length_px == pytest.approx(1.0548 * 2 * math.pi * 70, rel=0.015)
        assert found.cracks == 1


class TestASkeleton:
    def test_s_corner_is_cut_by_no_diagonal(self) -> None:
        corner = np.zeros((12, 12), bool)
        corner[2:10, 2] = corner[9, 2:10] = True
        cross = np.zeros((11, 11), bool)
        cross[5, :] = cross[:, 5] = True
        assert skeleton_length(cross) == 20
        assert skeleton_length(corner) == walked(skeletonize(corner))

    @given(mask=MASKS | blots())
    def test_is_as_long_as_a_walk_over_it(self, mask: np.ndarray) -> None:
        assert skeleton_length(mask) == pytest.approx(walked(skeletonize(mask != 0)), abs=1e-9)


class TestCracks:
    @given(mask=MASKS | blots())
    def test_measured_apart_or_together_are_the_same(self, mask: np.ndarray) -> None:
        found = []
        for cost in (-(10**9), 10**9):  # in boxes of their own, and all in one
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(measures, "BOX_COST", cost)
                found.append(measure(mask, mm_per_pixel=None))
        apart, together = found
        assert apart.length_px == pytest.approx(together.length_px, abs=1e-9)
        # OpenCV's distances end in another bit where the image lies otherwise in memory
        assert (apart.largest_width_px or 0) == pytest.approx(together.largest_width_px or 0, rel=1e-6)
        assert together.length_px == skeleton_length(mask)
        widest = crack_width(mask.astype(np.uint8)).max()
        assert (together.largest_width_px or 0) == pytest.approx(widest, rel=1e-6)

    def test_that_are_few_and_small_are_measured_in_their_boxes_alone(self) -> None:
        mask = np.zeros((1000, 1500), np.uint8)
        mask[100:103, 200:300] = mask[800:900, 1000:1002] = 1
        count, regions = measures._regions(mask)
        assert count == 2
        assert [region.shape for region in regions] == [(3, 100), (100, 2)]

    def test_that_are_many_and_small_are_measured_together(self, rng: np.random.Generator) -> None:
        count, regions = measures._regions((rng.random((200, 200)) < 0.05).astype(np.uint8))
        assert count > 1000
        assert [region.shape for region in regions] == [(200, 200)]

    def test_on_several_sheets_and_beside_large_ones_are_each_measured_once(
        self, rng: np.random.Generator
    ) -> None:
        mask = np.zeros((500, 700), np.uint8)
        for y in range(20, 440, 80):
            for x in range(20, 640, 50):
                cv2.ellipse(mask, (x, y), tuple(map(int, rng.integers(1, 22, 2))), 0, 0, 360, 1, -1)
        mask[490:495] = 1
        count, labels = cv2.connectedComponents(mask, connectivity=8)
        alone = [(labels == label).astype(np.uint8) for label in range(1, count)]
        shapes = [region.shape for region in measures._regions(mask)[1]]
        assert (5, 700) in shapes
        assert 2 < len(shapes) < 10
        found = measure(mask, mm_per_pixel=None)
        assert found.cracks == count - 1
        assert found.length_px == pytest.approx(sum(map(skeleton_length, alone)), abs=1e-6)
        assert found.largest_width_px == pytest.approx(max(crack_width(one).max() for one in alone), rel=1e-6)

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
        assert found.length_px == pytest.approx(2 * 189 + 60, abs=7)


@pytest.mark.parametrize("index", range(8))
def test_synthetic_cracks_have_the_length_and_the_widths_that_they_were_drawn_with(index: int) -> None:
    spec = SyntheticSpec(height=512, width=512, crack_width=(2, 12), clean=0, train=8)
    image = draw(spec, split="train", index=index)
    strokes = [stroke for crack in image.cracks for stroke in crack.strokes]
    steps = [np.hypot(*np.diff(stroke.points, axis=0).T) for stroke in strokes]
    length = sum(step.sum() for step in steps)
    mean = sum((step * stroke.widths).sum() for step, stroke in zip(steps, strokes, strict=True)) / length
    found = measure(image.mask, mm_per_pixel=0.25)
    assert found.cracks == image.topology.components
    assert found.length_px == pytest.approx(length, rel=0.04)
    assert found.mean_width_px == pytest.approx(mean, rel=0.04)
    assert found.largest_width_px == pytest.approx(max(stroke.widths.max() for stroke in strokes), abs=1.1)


class TestUnits:
    MASK = line(degrees=0, width=5)

    def test_follow_the_scale_once_for_lengths_and_twice_for_areas(self) -> None:
        found = measure(self.MASK, mm_per_pixel=0.2)
        assert found.mean_width_px is not None
        assert found.largest_width_px is not None
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
        assert (found.area_mm2, found.length_mm) == (0, 0)
        assert found.mean_width_px is found.largest_width_px is None
        assert found.mean_width_mm is found.largest_width_mm is None

    def test_of_specks_has_no_length_and_so_no_mean_width(self) -> None:
        mask = np.zeros((9, 9), np.uint8)
        mask[2, 2] = mask[6, 6] = 1
        found = measure(mask, mm_per_pixel=None)
        assert (found.cracks, found.area_px, found.length_px, found.largest_width_px) == (2, 2, 0, 1)
        assert found.mean_width_px is None

    def test_is_crack_wherever_it_is_not_0(self) -> None:
        mask = line(degrees=30, width=4)
        expected = measure(mask, mm_per_pixel=None)
        for same in (mask.astype(np.uint8), mask * np.uint8(255)):
            assert measure(same, mm_per_pixel=None) == expected

    def test_that_is_all_crack_is_one(self) -> None:
        found = measure(np.ones((15, 21), bool), mm_per_pixel=None)
        assert (found.share, found.cracks, found.largest_width_px) == (1, 1, 15)


def test_a_large_image_that_is_nearly_all_crack_has_no_length_and_takes_no_minutes(monkeypatch):
    monkeypatch.setattr(measures, "MOST_WORK", 200 * 200 * 150)
    full = np.ones((200, 200), np.uint8)
    found = measure(full, mm_per_pixel=0.5)
    assert (found.length_px, found.length_mm, found.mean_width_px) == (None, None, None)
    assert found.area_px == 40_000
    assert found.largest_width_px == pytest.approx(199, abs=1)

    thin = np.zeros((200, 200), np.uint8)
    thin[100, 20:180] = 1
    assert measure(thin, mm_per_pixel=None).length_px == 159
