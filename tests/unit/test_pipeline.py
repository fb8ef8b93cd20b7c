"""From prepared images to batches: what is drawn, how often, in which order; masks move with their images.

The images carry their own truth: red names the image, green is its mask, blue its valid pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets.folder import Folder
from fissura.data.pipeline import (
    Augmentation,
    Batch,
    Epochs,
    Patch,
    Pipeline,
    RandomCrop,
    WholeImage,
    collate,
    pad,
)
from fissura.data.resize import Native

SIZES = [(40, 40), (24, 56), (56, 24), (10, 60), (33, 47), (40, 40), (16, 16)]
MOVES = Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=0.5)
ALL = Augmentation(
    horizontal_flip=0.5, vertical_flip=0.5, rotate_90=0.5, brightness_contrast=0.5, gaussian_noise=0.5
)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Seven training images of many sizes, one of validation, one of test."""
    root = tmp_path_factory.mktemp("truth")
    random = np.random.default_rng(0)
    splits = ["train"] * len(SIZES) + ["val", "test"]
    for number, (split, size) in enumerate(zip(splits, [*SIZES, (40, 40), (40, 40)], strict=True), start=1):
        mask, valid = random.random(size) < 0.2, random.random(size) < 0.8
        image = np.stack([np.full(size, number), mask * 255, valid * 255], axis=-1)
        for folder, pixels in (("images", image), ("masks", mask * 255), ("valid", valid * 255)):
            path = root / folder / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return prepare([Folder(root=root)], resize=Native(), directory=root / "cache")


@pytest.fixture
def epochs(prepared: PreparedData) -> Callable[..., Epochs]:
    """Epochs of the prepared images; every argument has a default."""

    def make(
        *,
        per_image: int = 2,
        batch_size: int = 4,
        augmentation: Augmentation = MOVES,
        seed: int = 0,
        **rest: int,
    ) -> Epochs:
        crop = RandomCrop(size=16, per_image=per_image)
        pipeline = Pipeline(resize=Native(), crop=crop, augmentation=augmentation, batch_size=batch_size)
        return Epochs(prepared, pipeline=pipeline, stride=4, seed=seed, **rest)

    return make


def drawn(batches: Iterable[Batch]) -> list[int]:
    """The image that each sample of the batches was drawn from."""
    return [int(red) for batch in batches for red in batch.image[:, 0, 0, 0]]


def bits(batches: Iterable[Batch]) -> list[str]:
    """One hash a batch."""
    return [
        hashlib.sha256(b"".join(part.numpy().tobytes() for part in vars(batch).values())).hexdigest()
        for batch in batches
    ]


def numbered(height: int, width: int) -> Patch:
    """A patch whose red is the row, green the column, blue 255; half of it is crack, all of it valid."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    mask = ((rows + columns) % 2).astype(np.uint8)
    return np.dstack([rows, columns, np.full_like(rows, 255)]), mask, np.ones_like(mask)


class TestAnEpoch:
    @pytest.mark.parametrize(("per_image", "batch_size"), [(1, 1), (1, 4), (3, 4), (3, 64), (5, 7)])
    def test_draws_each_training_image_per_image_times(
        self, epochs: Callable[..., Epochs], per_image: int, batch_size: int
    ) -> None:
        these = epochs(per_image=per_image, batch_size=batch_size)
        batches = list(these.batches_of(0))
        assert Counter(drawn(batches)) == dict.fromkeys(range(1, len(SIZES) + 1), per_image)
        assert these.samples == per_image * len(SIZES)
        assert len(batches) == these.batches == -(-these.samples // batch_size)
        assert all(len(batch.image) == batch_size for batch in batches[:-1])

    def test_has_an_order_of_its_own(self, epochs: Callable[..., Epochs]) -> None:
        orders = [drawn(epochs(seed=seed).batches_of(epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
        assert len({tuple(order) for order in orders}) == len(orders)

    def test_draws_other_crops_than_the_one_before(self, epochs: Callable[..., Epochs]) -> None:
        crops = [bits(epochs(batch_size=1).batches_of(epoch)) for epoch in (0, 1)]
        # the 16x16 image has one crop in eight poses; the others have hundreds of each
        assert len(set(crops[0]) & set(crops[1])) <= 2

    def test_is_the_same_each_time(self, epochs: Callable[..., Epochs]) -> None:
        these = epochs(augmentation=ALL)
        assert (
            bits(these.batches_of(3))
            == bits(these.batches_of(3))
            == bits(epochs(augmentation=ALL).batches_of(3))
        )

    @pytest.mark.parametrize("threads", [2, 3, 8])
    def test_does_not_depend_on_the_number_of_threads(
        self, epochs: Callable[..., Epochs], threads: int
    ) -> None:
        alone = bits(epochs(augmentation=ALL, per_image=6).batches_of(1))
        assert bits(epochs(augmentation=ALL, per_image=6, threads=threads).batches_of(1)) == alone

    def test_can_begin_at_any_batch(self, epochs: Callable[..., Epochs]) -> None:
        these = epochs(augmentation=ALL, threads=2)
        whole = bits(these.batches_of(2))
        for start in range(len(whole) + 1):
            assert bits(these.batches_of(2, start=start)) == whole[start:]

    def test_can_be_left_before_its_end(self, epochs: Callable[..., Epochs]) -> None:
        these = epochs(threads=2)
        left = these.batches_of(0)
        next(left)
        left.close()  # type: ignore[attr-defined]
        assert bits(these.batches_of(0)) == bits(epochs().batches_of(0))

    def test_does_not_write_into_the_cache(self, prepared: PreparedData) -> None:
        pixels = prepared.directory / prepared.digest / "pixels.bin"
        before = pixels.read_bytes(), pixels.stat().st_mtime_ns
        always = Augmentation(**dict.fromkeys(Augmentation.model_fields, 1.0))
        for crop in (RandomCrop(size=16), RandomCrop(size=64), WholeImage()):
            pipeline = Pipeline(resize=Native(), crop=crop, augmentation=always)
            list(Epochs(prepared, pipeline=pipeline, stride=4, seed=0).batches_of(0))
        assert (pixels.read_bytes(), pixels.stat().st_mtime_ns) == before


class TestRanks:
    """Data-parallel workers take an equal share each of the batch that one worker would take."""

    @pytest.mark.parametrize("world_size", [2, 4])
    def test_together_take_the_single_worker_s_batch(
        self, epochs: Callable[..., Epochs], world_size: int
    ) -> None:
        alone = list(epochs(augmentation=ALL).batches_of(1))
        ranks = [
            list(epochs(augmentation=ALL, rank=rank, world_size=world_size).batches_of(1))
            for rank in range(world_size)
        ]
        assert {len(each) for each in ranks} == {len(alone)}
        for whole, *parts in zip(alone[:-1], *(each[:-1] for each in ranks), strict=True):
            for rank, part in enumerate(parts):
                for mine, all_of_it in zip(astuple(part), astuple(whole), strict=True):
                    assert torch.equal(mine, all_of_it[rank::world_size])

    def test_share_a_batch_that_does_not_divide_by_repeating_its_first(
        self, epochs: Callable[..., Epochs]
    ) -> None:
        alone = [drawn([batch]) for batch in epochs(per_image=1, batch_size=3).batches_of(0)]
        ranks = [
            [
                drawn([batch])
                for batch in epochs(per_image=1, batch_size=3, rank=r, world_size=2).batches_of(0)
            ]
            for r in (0, 1)
        ]
        assert [len(whole) for whole in alone] == [3, 3, 1]
        for whole, first, second in zip(alone, *ranks, strict=True):
            assert first == whole[0::2]
            assert second == [*whole, whole[0]][1::2]


class TestTruth:
    """Mask and valid pixels move with the image."""

    @pytest.mark.parametrize("crop", [RandomCrop(size=16, per_image=4), RandomCrop(size=48), WholeImage()])
    def test_survives_crops_flips_rotations_and_padding(
        self, prepared: PreparedData, crop: RandomCrop | WholeImage
    ) -> None:
        pipeline = Pipeline(resize=Native(), crop=crop, augmentation=MOVES, batch_size=3)
        these = Epochs(prepared, pipeline=pipeline, stride=8, seed=0)
        cracks = 0
        for epoch in range(3):
            for batch in these.batches_of(epoch):
                inside = batch.valid.bool()
                assert torch.equal(inside & (batch.image[:, 2:] == 255), inside)
                assert torch.equal((batch.target == 1)[inside], (batch.image[:, 1:2] == 255)[inside])
                assert batch.image.shape[-2] % 8 == batch.image.shape[-1] % 8 == 0
                assert {part.dtype for part in astuple(batch)} == {torch.uint8}
                cracks += int(batch.target.sum())
        assert cracks > 0

    def test_no_valid_pixel_of_a_whole_image_is_lost(self, prepared: PreparedData) -> None:
        pipeline = Pipeline(resize=Native(), augmentation=MOVES, batch_size=3)
        batches = Epochs(prepared, pipeline=pipeline, stride=8, seed=0).batches_of(0)
        seen = {
            int(red): int(valid.sum())
            for batch in batches
            for red, valid in zip(batch.image[:, 0, 0, 0], batch.valid, strict=True)
        }
        assert seen == {i + 1: int(prepared.valid(i).sum()) for i in prepared.indices("train")}


class TestRandomCrop:
    @given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
    def test_is_a_window_of_the_image_and_the_rest_is_not_valid(
        self, height: int, width: int, seed: int
    ) -> None:
        patch = numbered(height, width)
        image, mask, valid = RandomCrop(size=16).cut(patch, np.random.default_rng(seed))
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


class TestPadding:
    def test_of_ragged_patches_is_not_valid(self) -> None:
        patches = [numbered(5, 7), numbered(9, 4)]
        batch = collate(patches, stride=4)
        assert batch.image.shape == (2, 3, 12, 8)
        assert batch.target.shape == batch.valid.shape == (2, 1, 12, 8)
        for place, (image, mask, _) in enumerate(patches):
            height, width = mask.shape
            literal = np.zeros((12, 8), np.uint8)
            literal[:height, :width] = 1
            assert np.array_equal(batch.valid[place, 0], literal)
            literal[:height, :width] = mask
            assert np.array_equal(batch.target[place, 0], literal)
            assert np.array_equal(batch.image[place, :, :height, :width], image.transpose(2, 0, 1))
            assert (batch.image[place, :, height:, :width].numpy() == image[-1].T[:, None]).all()

    @given(height=st.integers(1, 20), width=st.integers(1, 20), stride=st.sampled_from([1, 2, 8, 32]))
    def test_reaches_the_next_multiple_of_the_stride(self, height: int, width: int, stride: int) -> None:
        side = collate([numbered(height, width)], stride=stride).image.shape[-2:]
        assert tuple(side) == (-(-height // stride) * stride, -(-width // stride) * stride)

    def test_never_shrinks(self) -> None:
        assert pad(numbered(9, 4), height=5, width=6)[0].shape == (9, 6, 3)


class TestAugmentation:
    IMAGE, MASK, VALID = numbered(6, 9)

    def apply(self, seed: int = 0, **probabilities: float) -> Any:
        transform = Augmentation(**probabilities).build()
        transform.set_random_seed(seed)
        changed = transform(image=self.IMAGE.copy(), masks=[self.MASK.copy(), self.VALID.copy()])
        return changed["image"], changed["masks"][0]

    @pytest.mark.parametrize(
        ("name", "literal"), [("horizontal_flip", np.fliplr), ("vertical_flip", np.flipud)]
    )
    def test_flips(self, name: str, literal: Callable[[Any], Any]) -> None:
        image, mask = self.apply(**{name: 1.0})
        assert np.array_equal(image, literal(self.IMAGE))
        assert np.array_equal(mask, literal(self.MASK))

    def test_rotates_by_all_right_angles(self) -> None:
        turns = Counter()
        for seed in range(200):
            image, mask = self.apply(seed, rotate_90=1.0)
            (turn,) = (k for k in range(4) if np.array_equal(image, np.rot90(self.IMAGE, k)))
            assert np.array_equal(mask, np.rot90(self.MASK, turn))
            turns[turn] += 1
        assert set(turns) == {0, 1, 2, 3}

    @pytest.mark.parametrize("name", ["brightness_contrast", "gaussian_noise"])
    def test_changes_of_pixels_leave_the_mask(self, name: str) -> None:
        image, mask = self.apply(**{name: 1.0})
        assert not np.array_equal(image, self.IMAGE)
        assert image.dtype == np.uint8
        assert np.array_equal(mask, self.MASK)

    @pytest.mark.parametrize("name", Augmentation.model_fields)
    def test_happens_as_often_as_its_probability_says(self, name: str) -> None:
        changes = sum(
            not np.array_equal(self.apply(seed, **{name: 0.2})[0], self.IMAGE) for seed in range(500)
        )
        # a quarter of the turns by 90 degrees are whole ones
        expected = 500 * 0.2 * (0.75 if name == "rotate_90" else 1)
        assert abs(changes - expected) < 40

    def test_of_probability_0_is_none(self) -> None:
        image, mask = self.apply()
        assert np.array_equal(image, self.IMAGE)
        assert np.array_equal(mask, self.MASK)


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
