"""From prepared images to batches: what is drawn, how often, in which order; masks move with their images.

The images carry their own truth: red names the image, green is its mask, blue its valid pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.data.augmentation import STRENGTHS
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets.folder import Folder
from fissura.data.epochs import Batch, Epochs
from fissura.data.pipeline import Augmentation, CrackPatches, Pipeline, RandomCrop, WholeImage
from fissura.data.resize import Native

SIZES = [(40, 40), (24, 56), (56, 24), (10, 60), (33, 47), (40, 40), (16, 16)]
MOVES = Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=0.5)
ALL = Augmentation(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotate_90=0.5,
    brightness_contrast=0.5,
    gaussian_noise=0.5,
    hue=0.5,
)


def made(root: Path, *, sizes: list[tuple[int, int]]) -> PreparedData:
    """Training images of these sizes, one image of validation, one of test."""
    random = np.random.default_rng(0)
    splits = ["train"] * len(sizes) + ["val", "test"]
    for number, (split, size) in enumerate(zip(splits, [*sizes, (40, 40), (40, 40)], strict=True), start=1):
        mask, valid = random.random(size) < 0.2, random.random(size) < 0.8
        image = np.stack([np.full(size, number), mask * 255, valid * 255], axis=-1)
        for folder, pixels in (("images", image), ("masks", mask * 255), ("valid", valid * 255)):
            path = root / folder / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return prepare([Folder(root=root)], resize=Native(), directory=root / "cache")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Seven training images of many sizes, one of validation, one of test."""
    return made(tmp_path_factory.mktemp("truth"), sizes=SIZES)


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
        hashlib.sha256(b"".join(part.numpy().tobytes() for part in tensors(batch))).hexdigest()
        for batch in batches
    ]


def tensors(batch: Batch) -> list[torch.Tensor]:
    """The tensors that the batch has."""
    return [batch.image, batch.target, batch.valid, *batch.maps.values()]


class TestAnEpoch:
    @pytest.mark.parametrize(("per_image", "batch_size"), [(1, 1), (1, 4), (3, 8), (3, 64), (5, 7)])
    def test_draws_each_training_image_per_image_times(
        self, epochs: Callable[..., Epochs], per_image: int, batch_size: int
    ) -> None:
        these = epochs(per_image=per_image, batch_size=batch_size)
        batches = list(these.batches_of(0))
        assert Counter(drawn(batches)) == dict.fromkeys(range(1, len(SIZES) + 1), per_image)
        assert these.samples == per_image * len(SIZES)
        assert len(batches) == these.batches == -(-these.samples // batch_size)
        assert all(len(batch.image) == batch_size for batch in batches[:-1])

    def test_leaves_out_a_last_batch_of_one_sample(self, epochs: Callable[..., Epochs]) -> None:
        these = epochs(per_image=3, batch_size=4)
        left_out = set()
        for epoch in range(8):
            batches = list(these.batches_of(epoch))
            assert [len(batch.image) for batch in batches] == [4] * 5
            counts = Counter(drawn(batches))
            (image,) = (image for image in range(1, len(SIZES) + 1) if counts[image] < 3)
            left_out.add(image)
        assert (these.samples, these.batches) == (20, 5)
        assert len(left_out) > 1

    def test_of_one_sample_is_a_batch(self, tmp_path: Path) -> None:
        pipeline = Pipeline(resize=Native(), batch_size=4)
        these = Epochs(made(tmp_path, sizes=[(16, 16)]), pipeline=pipeline, stride=4, seed=0)
        assert [len(batch.image) for batch in these.batches_of(0)] == [1]
        assert (these.samples, these.batches) == (1, 1)

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
        changes = [name for name in Augmentation.model_fields if name not in STRENGTHS]
        always = Augmentation(**dict.fromkeys(changes, 1.0))
        for crop in (
            RandomCrop(size=16),
            RandomCrop(size=64),
            CrackPatches(size=16, per_image=2),
            WholeImage(),
        ):
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
                for mine, all_of_it in zip(tensors(part), tensors(whole), strict=True):
                    assert torch.equal(mine, all_of_it[rank::world_size])

    def test_share_a_batch_that_does_not_divide_by_repeating_its_first(
        self, epochs: Callable[..., Epochs]
    ) -> None:
        alone = [drawn([batch]) for batch in epochs(batch_size=5).batches_of(0)]
        ranks = [
            [drawn([batch]) for batch in epochs(batch_size=5, rank=r, world_size=2).batches_of(0)]
            for r in (0, 1)
        ]
        assert [len(whole) for whole in alone] == [5, 5, 4]
        for whole, first, second in zip(alone, *ranks, strict=True):
            assert first == whole[0::2]
            assert second == [*whole, whole[0]][1::2]


@pytest.mark.parametrize(
    ("augmentation", "digest"), [(Augmentation(), "9a9451d7ae00bcae"), (MOVES, "3fb56c73842c1df4")]
)
def test_random_crops_are_those_of_earlier_versions(
    epochs: Callable[..., Epochs], augmentation: Augmentation, digest: str
) -> None:
    drawn_bytes = hashlib.sha256()
    for epoch in (0, 1):
        for batch in epochs(augmentation=augmentation).batches_of(epoch):
            for part in tensors(batch):
                drawn_bytes.update(str(tuple(part.shape)).encode())
                drawn_bytes.update(part.numpy().tobytes())
    assert drawn_bytes.hexdigest()[:16] == digest


class TestTruth:
    """Mask and valid pixels move with the image."""

    @pytest.mark.parametrize(
        "crop",
        [
            RandomCrop(size=16, per_image=4),
            RandomCrop(size=48),
            CrackPatches(size=16, per_image=4),
            CrackPatches(size=48, per_image=1),
            WholeImage(),
        ],
    )
    def test_survives_crops_flips_rotations_and_padding(
        self, prepared: PreparedData, crop: RandomCrop | CrackPatches | WholeImage
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
                assert {part.dtype for part in tensors(batch)} == {torch.uint8}
                cracks += int(batch.target.sum())
        assert cracks > 0

    def test_no_valid_pixel_of_a_whole_image_is_lost(self, prepared: PreparedData) -> None:
        pipeline = Pipeline(resize=Native(), augmentation=MOVES, batch_size=4)
        batches = Epochs(prepared, pipeline=pipeline, stride=8, seed=0).batches_of(0)
        seen = {
            int(red): int(valid.sum())
            for batch in batches
            for red, valid in zip(batch.image[:, 0, 0, 0], batch.valid, strict=True)
        }
        assert seen == {i + 1: int(prepared.valid(i).sum()) for i in prepared.indices("train")}


class TestCrackPatches:
    def epochs(self, prepared: PreparedData, **rest: int) -> Epochs:
        crop = CrackPatches(size=16, per_image=12, allocation="crack_pixels")
        pipeline = Pipeline(resize=Native(), crop=crop, augmentation=MOVES, batch_size=8)
        return Epochs(prepared, pipeline=pipeline, stride=8, seed=0, **rest)

    def test_do_not_depend_on_threads_and_workers(self, prepared: PreparedData) -> None:
        alone = list(self.epochs(prepared).batches_of(1))
        assert bits(self.epochs(prepared, threads=3).batches_of(1)) == bits(alone)
        for rank in (0, 1):
            mine = list(self.epochs(prepared, rank=rank, world_size=2).batches_of(1))
            for part, whole in zip(mine, alone, strict=True):
                assert torch.equal(part.image, whole.image[rank::2])

    def test_come_from_each_image_as_often_as_its_share_of_crack_pixels_says(
        self, prepared: PreparedData
    ) -> None:
        these = self.epochs(prepared)
        cracks = {i + 1: int((prepared.mask(i) & prepared.valid(i)).sum()) for i in prepared.indices("train")}
        assert these.samples == 12 * len(SIZES)
        counts = Counter(drawn(these.batches_of(0)))
        for image, pixels in cracks.items():
            assert abs(counts[image] - these.samples * pixels / sum(cracks.values())) < 1
