"""The interference set: it disturbs, says the same each time, and leaves a crack in sight."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fissura.data.interference import Interference, disturb
from fissura.data.synthetic import SyntheticSpec, draw

KINDS: tuple[Interference, ...] = get_args(Interference)
PLAIN = SyntheticSpec(shadow=0, stain=0, low_contrast=0, clean=0, crack_width=(3, 5))
WALL = np.full((100, 120, 3), 150, np.uint8)


def difference(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(image.astype(int) - other).max(axis=2))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_keeps_shape_and_type_and_leaves_the_original_alone(self, kind: Interference) -> None:
        image = draw(PLAIN, split="test", index=0).image
        before = image.copy()
        disturbed = disturb(image, kind=kind, seed=0)
        assert disturbed.shape == image.shape
        assert disturbed.dtype == np.uint8
        np.testing.assert_array_equal(image, before)

    def test_is_the_same_for_a_seed_and_another_for_another(self, kind: Interference) -> None:
        image = draw(PLAIN, split="test", index=0).image
        first, again, other = (disturb(image, kind=kind, seed=seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_changes_a_fair_share_of_the_pixels(self, kind: Interference) -> None:
        image = draw(PLAIN, split="test", index=1).image
        for seed in range(40):
            assert (difference(disturb(image, kind=kind, seed=seed), image) >= 6).mean() >= 0.1

    def test_leaves_cracks_in_sight(self, kind: Interference) -> None:
        for index in range(12):
            drawn = draw(PLAIN, split="test", index=index)
            disturbed = disturb(drawn.image, kind=kind, seed=index)
            assert contrast(disturbed, drawn.mask) >= 0.2 * contrast(drawn.image, drawn.mask) > 2

    @given(dark=st.sampled_from((0, 5, 120, 240)), seed=st.integers(0, 10_000))
    def test_no_faint_line_is_clipped_away_on_a_black_or_a_white_surface(
        self, kind: Interference, dark: int, seed: int
    ) -> None:
        image = np.full((48, 48, 3), dark + 15, np.uint8)
        image[:, ::4] = dark
        disturbed = disturb(image, kind=kind, seed=seed).astype(float)
        step = disturbed[:, 2::4] - disturbed[:, ::4]
        assert step.mean() >= 0.2 * 15

    @pytest.mark.parametrize("shape", [(1, 1, 3), (9, 200, 3), (64, 64, 3)])
    @pytest.mark.parametrize("level", [0, 255])
    def test_takes_any_size_and_level(self, kind: Interference, shape: tuple[int, ...], level: int) -> None:
        assert disturb(np.full(shape, level, np.uint8), kind=kind, seed=1).shape == shape


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """The mean grey level just beside the cracks less that on them."""
    import cv2

    grey = image.mean(axis=2)
    near = cv2.dilate(mask, np.ones((9, 9), np.uint8)) - cv2.dilate(mask, np.ones((3, 3), np.uint8))
    return float(grey[near == 1].mean() - grey[mask == 1].mean())


def test_a_shadow_darkens_a_part_by_forty_to_sixty_five_percent() -> None:
    for seed in range(60):
        light = disturb(WALL, kind="shadow", seed=seed)[..., 0] / 150
        assert light.max() <= 1.01
        assert 0.33 <= light.min() <= 0.62
        assert 0.1 <= (light < 0.8).mean() <= 0.9


def test_a_shadow_has_soft_edges() -> None:
    between = [
        int(((light > 0.7) & (light < 0.95)).sum())
        for light in (disturb(WALL, kind="shadow", seed=seed)[..., 0] / 150 for seed in range(10))
    ]
    assert min(between) > 20


def test_a_stain_discolours_a_part_in_blotches() -> None:
    tinted = 0
    for seed in range(30):
        stained = disturb(WALL, kind="stain", seed=seed)
        changed = (difference(stained, WALL) > 10).mean()
        assert 0.1 <= changed <= 0.8
        tinted += bool(np.ptp(stained.astype(int), axis=2).max() > 20)
    assert 3 <= tinted <= 27  # rust has a colour, damp and lime have next to none


def test_low_contrast_leaves_a_quarter_to_six_tenths_of_the_spread() -> None:
    image = draw(PLAIN, split="test", index=2).image
    for seed in range(40):
        share = disturb(image, kind="low_contrast", seed=seed)[..., 0].std() / image[..., 0].std()
        assert 0.23 <= share <= 0.62


def test_the_kinds_draw_apart_for_one_seed() -> None:
    images = [disturb(WALL, kind=kind, seed=0) for kind in ("shadow", "stain")]
    assert (images[0] != images[1]).any()
