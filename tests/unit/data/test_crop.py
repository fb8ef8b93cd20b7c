"""Parts of images: where they are cut, how many, and what lies beyond an image."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fissura.core.errors import DataError
from fissura.data.crop import apportion
from fissura.data.epochs import collate
from fissura.data.pipeline import CrackPatches, Patch, RandomCrop, WholeImage, pad


def numbered(height: int, width: int) -> Patch:
    """A patch whose red is the row, green the column, blue 255; half of it is crack, all of it valid."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    mask = ((rows + columns) % 2).astype(np.uint8)
    return Patch(np.dstack([rows, columns, np.full_like(rows, 255)]), mask, np.ones_like(mask))


def cracked(height: int, width: int, *, seed: int, density: float) -> Patch:
    """A numbered patch with random crack pixels, of which about half are not valid."""
    random = np.random.default_rng(seed)
    mask = (random.random((height, width)) < density).astype(np.uint8)
    valid = (random.random((height, width)) < 0.5).astype(np.uint8)
    return numbered(height, width)._replace(mask=mask, valid=valid)


def place(patch: Patch) -> tuple[int, int]:
    """Row and column at which a part of a numbered patch begins."""
    return int(patch.image[0, 0, 0]), int(patch.image[0, 0, 1])


def places(patch: Patch, *, size: int, crack: bool) -> set[tuple[int, int]]:
    """All positions of squares with, or without, a valid crack pixel."""
    height, width = patch.mask.shape
    return {
        (top, left)
        for top in range(height - size + 1)
        for left in range(width - size + 1)
        if (patch.mask & patch.valid)[top : top + size, left : left + size].any() == crack
    }


class TestRandomCrop:
    @given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
    def test_is_a_window_of_the_image_and_the_rest_is_not_valid(
        self, height: int, width: int, seed: int
    ) -> None:
        patch = numbered(height, width)
        image, mask, valid, _ = RandomCrop(size=16).cut(patch, np.random.default_rng(seed))
        assert image.shape == (16, 16, 3)
        rows, columns = min(height, 16), min(width, 16)
        assert valid[:rows, :columns].all()
        assert int(valid.sum()) == rows * columns
        top, left = int(image[0, 0, 0]), int(image[0, 0, 1])
        window = slice(top, top + 16), slice(left, left + 16)
        assert np.array_equal(image[:rows, :columns], patch[0][window])
        assert np.array_equal(mask[:rows, :columns], patch[1][window])
        assert not mask[valid == 0].any()

    def test_reaches_every_place_equally(self) -> None:
        generator, patch = np.random.default_rng(0), numbered(18, 17)
        images = [RandomCrop(size=16).cut(patch, generator)[0] for _ in range(600)]
        places = Counter((int(image[0, 0, 0]), int(image[0, 0, 1])) for image in images)
        assert set(places) == {(top, left) for top in range(3) for left in range(2)}
        # each place has probability 1/6: 100 of 600 expected, standard deviation 9
        assert all(60 < count < 140 for count in places.values())


class TestCrackPatches:
    @pytest.mark.parametrize("crack", [True, False])
    def test_of_a_sort_come_from_all_its_positions_equally(self, crack: bool) -> None:
        patch, generator = cracked(33, 29, seed=1, density=0.006), np.random.default_rng(0)
        expected = places(patch, size=16, crack=crack)
        assert 60 < len(expected) < 18 * 14 - 60
        cut = CrackPatches(size=16, crack_share=float(crack)).cutter(patch)
        found = Counter(place(cut(generator)) for _ in range(50 * len(expected)))
        assert set(found) == expected
        # a fair draw stays above this level in 999 of 1000 seeds; this seed is fixed
        assert chisquare(list(found.values())).pvalue > 0.001

    @given(
        height=st.integers(1, 40),
        width=st.integers(1, 40),
        density=st.sampled_from([0.0, 0.003, 0.02, 1.0]),
        seed=st.integers(0, 2**32 - 1),
        crack=st.booleans(),
    )
    def test_are_of_the_wanted_sort_or_of_the_other_where_there_is_none(
        self, height: int, width: int, density: float, seed: int, crack: bool
    ) -> None:
        patch = cracked(height, width, seed=seed, density=density)
        crop = CrackPatches(size=16, crack_share=float(crack))
        part = crop.cut(patch, np.random.default_rng(seed))
        padded = pad(patch, height=16, width=16)
        wanted = places(padded, size=16, crack=crack)
        assert place(part) in (wanted or places(padded, size=16, crack=not crack))
        top, left = place(part)
        for mine, whole in zip(part[:3], padded[:3], strict=True):
            assert np.array_equal(mine, whole[top : top + 16, left : left + 16])

    def test_hold_a_crack_as_often_as_their_share_says(self) -> None:
        patch, generator = cracked(60, 50, seed=2, density=0.002), np.random.default_rng(0)
        cut = CrackPatches(size=16, crack_share=0.6).cutter(patch)
        hits = sum(bool((part.mask & part.valid).any()) for part in (cut(generator) for _ in range(2000)))
        # standard deviation 22
        assert abs(hits - 1200) < 80

    def test_are_drawn_the_same_from_a_prepared_cutter(self) -> None:
        patch, crop = cracked(60, 50, seed=2, density=0.002), CrackPatches(size=16)
        cut = crop.cutter(patch)
        for seed in range(20):
            one, other = (draw(np.random.default_rng(seed)) for draw in (cut, lambda g: crop.cut(patch, g)))
            assert place(one) == place(other)


class TestCounts:
    IMAGES = tuple(cracked(20, 20, seed=seed, density=density) for seed, density in enumerate((0.3, 0, 0.1)))

    @pytest.mark.parametrize(
        ("crop", "each"),
        [
            (WholeImage(), 1),
            (RandomCrop(per_image=7), 7),
            (CrackPatches(per_image=9), 9),
        ],
    )
    def test_are_equal(self, crop: Any, each: int) -> None:
        assert crop.counts(self.IMAGES) == [each] * 3

    def test_by_crack_pixels_follow_the_valid_ones(self) -> None:
        pixels = [int((image.mask & image.valid).sum()) for image in self.IMAGES]
        assert pixels[1] == 0
        assert pixels[0] > pixels[2] > 0
        counts = CrackPatches(per_image=sum(pixels), allocation="crack_pixels").counts(self.IMAGES)
        assert counts == [3 * each for each in pixels]

    def test_by_crack_pixels_need_a_crack(self) -> None:
        with pytest.raises(DataError, match=r"needs training images with cracks.*`equal`"):
            CrackPatches(allocation="crack_pixels").counts(self.IMAGES[1:2])

    def test_leave_the_largest_remainders_one_more(self) -> None:
        assert apportion(10, shares=[1, 1, 1]) == [4, 3, 3]
        assert apportion(10, shares=[26, 0, 37, 37]) == [2, 0, 4, 4]

    @given(total=st.integers(0, 10**7), shares=st.lists(st.integers(0, 10**8), min_size=1, max_size=20))
    def test_sum_to_the_total_and_are_within_one_of_their_share(self, total: int, shares: list[int]) -> None:
        shares = [*shares, 1]
        parts = apportion(total, shares=shares)
        assert sum(parts) == total
        assert all(
            abs(part * sum(shares) - total * share) < sum(shares)
            for part, share in zip(parts, shares, strict=True)
        )


class TestPadding:
    def test_of_ragged_patches_is_not_valid(self) -> None:
        patches = [numbered(5, 7), numbered(9, 4)]
        batch = collate(patches, stride=4)
        assert batch.image.shape == (2, 3, 12, 8)
        assert batch.target.shape == batch.valid.shape == (2, 1, 12, 8)
        for number, (image, mask, _, _) in enumerate(patches):
            height, width = mask.shape
            literal = np.zeros((12, 8), np.uint8)
            literal[:height, :width] = 1
            assert np.array_equal(batch.valid[number, 0], literal)
            literal[:height, :width] = mask
            assert np.array_equal(batch.target[number, 0], literal)
            assert np.array_equal(batch.image[number, :, :height, :width], image.transpose(2, 0, 1))
            assert (batch.image[number, :, height:, :width].numpy() == image[-1].T[:, None]).all()

    @given(height=st.integers(1, 20), width=st.integers(1, 20), stride=st.sampled_from([1, 2, 8, 32]))
    def test_reaches_the_next_multiple_of_the_stride(self, height: int, width: int, stride: int) -> None:
        side = collate([numbered(height, width)], stride=stride).image.shape[-2:]
        assert tuple(side) == (-(-height // stride) * stride, -(-width // stride) * stride)

    def test_never_shrinks(self) -> None:
        assert pad(numbered(9, 4), height=5, width=6)[0].shape == (9, 6, 3)

    def test_of_other_maps_is_0(self) -> None:
        patches = [numbered(5, 7), numbered(9, 4)]
        marked = [patch._replace(maps={"ones": np.ones_like(patch.mask)}) for patch in patches]
        batch = collate(marked, stride=4)
        assert np.array_equal(batch.maps["ones"], batch.valid)
        assert np.array_equal(pad(marked[0], height=8, width=8).maps["ones"], batch.valid[0, 0, :8])
        assert collate(patches, stride=4).maps == {}
