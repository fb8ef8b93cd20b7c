"""What is done to pixels: random changes, how often and how they are drawn; then the scale."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from fissura.core.errors import SpecError
from fissura.core.spec import digest
from fissura.data.augmentation import STRENGTHS
from fissura.data.pipeline import Augmentation, Patch, Pipeline
from fissura.recipes import load_recipe
from fissura.segmentation.recipe import Recipe
from fissura.spaces.fields import override

PROBABILITIES = tuple(name for name in Augmentation.model_fields if name not in STRENGTHS)
PIXEL_CHANGES = PROBABILITIES[3:]


def patch() -> Patch:
    """Colours that no change takes to black or white, and maps that differ from each other."""
    random = np.random.default_rng(0)
    image = random.integers(70, 180, (6, 9, 3)).astype(np.uint8)
    mask, valid, ambiguous = (random.random((3, 6, 9)) < 0.5).astype(np.uint8)
    return Patch(image, mask, valid, {"ambiguous": ambiguous})


PATCH = patch()


def apply(seed: int = 0, **fields: Any) -> Patch:
    return Augmentation(**fields).build().apply(PATCH, seed=seed)


def outcomes(seeds: int, **fields: Any) -> list[Patch]:
    changes = Augmentation(**fields).build()
    return [changes.apply(PATCH, seed=seed) for seed in range(seeds)]


def planes(part: Patch) -> list[np.ndarray]:
    """The image and all maps."""
    return [part.image, part.mask, part.valid, *part.maps.values()]


def is_moved(part: Patch, move: Callable[[Any], Any]) -> bool:
    """Whether image and maps are those of the patch after the move."""
    moved = PATCH.map(move)
    return all(np.array_equal(*pair) for pair in zip(planes(part), planes(moved), strict=True))


class TestMoves:
    @pytest.mark.parametrize(
        ("name", "literal"), [("horizontal_flip", np.fliplr), ("vertical_flip", np.flipud)]
    )
    def test_flip(self, name: str, literal: Callable[[Any], Any]) -> None:
        assert is_moved(apply(**{name: 1.0}), literal)

    def test_turn_by_all_right_angles(self) -> None:
        turns = Counter(
            turn
            for part in outcomes(200, rotate_90=1.0)
            for turn in range(4)
            if is_moved(part, lambda pixels: np.rot90(pixels, turn))  # noqa: B023 - called at once
        )
        assert turns.total() == 200
        assert all(25 < turns[turn] < 80 for turn in range(4))


class TestPixelChanges:
    @pytest.mark.parametrize("name", PIXEL_CHANGES)
    def test_leave_the_maps(self, name: str) -> None:
        part = apply(**{name: 1.0})
        assert not np.array_equal(part.image, PATCH.image)
        assert part.image.dtype == np.uint8
        assert all(mine is given for mine, given in zip(part[1:], PATCH[1:], strict=True))

    def test_of_brightness_add_the_same_to_each_pixel(self) -> None:
        for part in outcomes(20, brightness=1.0):
            assert np.ptp(part.image.astype(int) - PATCH.image) <= 1

    def test_of_contrast_scale_each_pixel_by_the_same(self) -> None:
        for part in outcomes(20, contrast=1.0):
            factor = part.image.sum() / PATCH.image.sum()
            assert np.abs(part.image - PATCH.image * factor).max() < 2
            assert 0.78 < factor < 1.22

    def test_of_hue_keep_value_and_saturation(self) -> None:
        for part in outcomes(20, hue=1.0):
            for extreme in (np.max, np.min):
                assert (
                    np.abs(extreme(part.image, axis=2).astype(int) - extreme(PATCH.image, axis=2)).max() < 3
                )

    def test_of_saturation_keep_value_and_order_of_the_channels(self) -> None:
        for part in outcomes(20, saturation=1.0):
            assert np.abs(part.image.max(axis=2).astype(int) - PATCH.image.max(axis=2)).max() < 3
            ordered = np.take_along_axis(part.image, PATCH.image.argsort(axis=2), axis=2).astype(int)
            assert np.diff(ordered, axis=2).min() >= -3

    def test_by_blur_take_contrast_from_neighbours(self) -> None:
        for part in outcomes(20, blur=1.0):
            assert part.image.std() < PATCH.image.std()

    @pytest.mark.parametrize("name", PIXEL_CHANGES)
    def test_do_not_write_into_the_sample(self, name: str) -> None:
        before = PATCH.image.copy()
        outcomes(20, **{name: 1.0})
        assert np.array_equal(PATCH.image, before)


GREY = Patch(np.full((64, 64, 3), 128, np.uint8), *np.zeros((2, 64, 64), np.uint8))


def changes_of(**fields: Any) -> np.ndarray:
    """What 200 draws add to a mid-grey wall, float64 [draw, 64, 64, 3], in grey levels."""
    made = Augmentation(**fields).build()
    return np.stack([made.apply(GREY, seed=seed).image.astype(float) - 128 for seed in range(200)])


class TestStrengths:
    @pytest.mark.parametrize("sigma", [4.0, 7.0, 30.0])
    def test_of_noise_is_half_to_all_of_the_grey_levels_that_the_recipe_says(self, sigma: float) -> None:
        deviations = changes_of(gaussian_noise=1.0, noise_sigma=sigma).std(axis=(1, 2, 3))
        assert deviations.min() == pytest.approx(sigma / 2, abs=0.05 * sigma + 0.45)
        assert deviations.max() == pytest.approx(sigma, abs=0.05 * sigma + 0.45)

    def test_of_noise_leaves_a_thin_faint_crack_visible_by_default(self) -> None:
        wall = np.full((64, 64, 3), 150, np.uint8)
        wall[:, 30:32] = 130  # two pixels wide, 20 levels darker
        faint = Patch(wall, *np.zeros((2, 64, 64), np.uint8))
        for sigma, visible in ((Augmentation().noise_sigma, True), (86.0, False)):
            made = Augmentation(gaussian_noise=1.0, noise_sigma=sigma).build()
            for seed in range(20):
                grey = made.apply(faint, seed=seed).image.mean(axis=2)
                crack, sound = grey[:, 30:32].ravel(), np.delete(grey, (30, 31), axis=1).ravel()
                # the chance that a pixel of the crack is darker than one beside it
                darker = np.searchsorted(np.sort(sound), crack, side="left").mean() / len(sound)
                assert (darker < 0.05) == visible, (sigma, seed, darker)

    @pytest.mark.parametrize("name", ["brightness", "brightness_contrast"])
    @pytest.mark.parametrize("limit", [0.1, 0.2])
    def test_of_brightness_is_a_share_of_255(self, name: str, limit: float) -> None:
        shifts = np.abs(changes_of(**{name: 1.0}, brightness_limit=limit, contrast_limit=1e-9))
        assert 0.9 * limit * 255 < shifts.max() <= limit * 255 + 1

    @pytest.mark.parametrize("name", ["contrast", "brightness_contrast"])
    @pytest.mark.parametrize("limit", [0.1, 0.2])
    def test_of_contrast_is_a_factor(self, name: str, limit: float) -> None:
        shifts = np.abs(changes_of(**{name: 1.0}, contrast_limit=limit, brightness_limit=1e-9))
        assert 0.9 * limit * 128 < shifts.max() <= limit * 128 + 1

    @pytest.mark.parametrize("kernel", [3, 7, 11])
    def test_of_a_blur_is_its_largest_box(self, kernel: int) -> None:
        dot = np.zeros((41, 41, 3), np.uint8)
        dot[20, 20] = 255
        made = Augmentation(blur=1.0, blur_kernel=kernel).build()
        patch_ = Patch(dot, *np.zeros((2, 41, 41), np.uint8))
        sides = {int((made.apply(patch_, seed=seed).image[20] > 0).any(axis=1).sum()) for seed in range(60)}
        assert sides == set(range(3, kernel + 1, 2))

    @pytest.mark.parametrize(
        ("strength", "change"), [("hue_shift", "hue"), ("saturation_shift", "saturation")]
    )
    def test_of_hue_and_saturation_is_in_the_units_of_hsv(self, strength: str, change: str) -> None:
        from PIL import Image

        colour = Patch(np.full((4, 4, 3), (180, 120, 60), np.uint8), *np.zeros((2, 4, 4), np.uint8))
        channel = 0 if change == "hue" else 1

        def levels(pixels: np.ndarray) -> int:
            hsv = np.asarray(Image.fromarray(pixels).convert("HSV"))
            # Pillow's hue has 256 steps where the recipe's has 180
            return round(int(hsv[0, 0, channel]) * (180 / 256 if change == "hue" else 1))

        for most in (5, 10):
            made = Augmentation(**{change: 1.0, strength: most}).build()
            shifts = [
                abs(levels(made.apply(colour, seed=seed).image) - levels(colour.image)) for seed in range(100)
            ]
            assert most - 2 <= max(shifts) <= most + 2

    def test_that_are_none_are_refused(self) -> None:
        with pytest.raises(SpecError, match="write 3 or 5"):
            Augmentation.load({"blur_kernel": 4}, source="recipe")
        with pytest.raises(SpecError, match="noise_sigma"):
            Augmentation.load({"noise_sigma": 0}, source="recipe")

    def test_are_recorded_and_name_the_run_where_they_decide_something(self) -> None:
        def named(**values: Any) -> str:
            changes = {f"data.augmentation.{name}": value for name, value in values.items()}
            return override(load_recipe("small_unet"), changes).run_id("c" * 16)

        assert load_recipe("unet_backbones").plain()["data"]["augmentation"]["noise_sigma"] == 7.0
        assert named() == named(noise_sigma=9.0), "no noise is made"
        assert named(gaussian_noise=0.2) != named(gaussian_noise=0.2, noise_sigma=9.0)
        assert named(blur=0.2) != named(blur=0.2, blur_kernel=9)

    def test_of_recipes_without_noise_leave_the_names_of_their_earlier_runs(self) -> None:
        recipe = load_recipe("small_unet")
        plain = recipe.plain()
        for strength in STRENGTHS:
            del plain["data"]["augmentation"][strength]
        assert Recipe.load(plain, source="recipe.json") == recipe
        del plain["kept_by"], plain["smallest_crack"]
        assert recipe.run_id("c" * 16) == digest({"recipe": plain, "content": "c" * 16})[:12]


class TestDraws:
    @pytest.mark.parametrize("name", PROBABILITIES)
    def test_change_as_often_as_the_probability_says(self, name: str) -> None:
        changes = sum(not np.array_equal(part.image, PATCH.image) for part in outcomes(500, **{name: 0.2}))
        # a quarter of the turns by 90 degrees are whole ones
        expected = 500 * 0.2 * (0.75 if name == "rotate_90" else 1)
        assert abs(changes - expected) < 40

    def test_of_probability_0_give_the_sample_itself(self) -> None:
        assert apply() is PATCH

    def test_flip_each_way_for_itself(self) -> None:
        flips = [lambda p: p, lambda p: p[:, ::-1], lambda p: p[::-1], lambda p: p[::-1, ::-1]]
        parts = outcomes(400, horizontal_flip=0.5, vertical_flip=0.5)
        counts = [sum(is_moved(part, flip) for part in parts) for flip in flips]
        assert sum(counts) == 400
        # standard deviation 9
        assert all(abs(count - 100) < 35 for count in counts)

    def test_of_two_changes_of_pixels_are_independent(self) -> None:
        happened = {
            name: [not np.array_equal(part.image, PATCH.image) for part in outcomes(300, **{name: 0.5})]
            for name in ("blur", "hue", "saturation", "brightness", "contrast")
        }
        for one, other in pairwise(happened.values()):
            both = sum(a and b for a, b in zip(one, other, strict=True))
            # a quarter, standard deviation 7.5
            assert abs(both - 75) < 30


class TestNormalisation:
    COLOURS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)

    def test_unit(self) -> None:
        normalised = Pipeline(normalisation="unit").normalise(self.COLOURS)
        for channel in range(3):
            assert torch.allclose(normalised[0, channel].flatten(), torch.arange(256) / 255)

    def test_imagenet(self) -> None:
        normalised = Pipeline(normalisation="imagenet").normalise(self.COLOURS)
        constants = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]
        for channel, (mean, deviation) in enumerate(constants):
            literal = [(value / 255 - mean) / deviation for value in range(256)]
            assert normalised[0, channel].flatten().tolist() == pytest.approx(literal, abs=1e-5)
