"""Maps of a loss that go with the images; here they are 1, or a half, where a valid pixel is no crack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.core.errors import DataError
from fissura.data.cache import PreparedData, prepare
from fissura.data.datasets.folder import Folder
from fissura.data.epochs import Batch, Epochs
from fissura.data.pipeline import Augmentation, CrackPatches, Pipeline, RandomCrop, WholeImage
from fissura.data.resize import Native

ALL = Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=0.5, gaussian_noise=0.5)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedData:
    """Four training images of different sizes with random masks and valid pixels; two of other splits."""
    random = np.random.default_rng(0)
    sizes = [(40, 40), (10, 60), (24, 56), (33, 47), (16, 16), (16, 16)]
    for number, (size, split) in enumerate(zip(sizes, ["train"] * 4 + ["val", "test"], strict=True)):
        for folder, share in (("images", 0.5), ("masks", 0.2), ("valid", 0.8)):
            path = tmp_path / folder / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((random.random(size) < share).astype(np.uint8) * 255).save(path)
    return prepare([Folder(root=tmp_path)], resize=Native(), directory=tmp_path / "cache")


def pixels(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.image, batch.target, batch.valid


@pytest.fixture
def maps(prepared: PreparedData) -> dict[int, Any]:
    return {i: (1 - prepared.mask(i)) * prepared.valid(i) for i in prepared.indices("train")}


@pytest.mark.parametrize(
    "crop", [RandomCrop(size=16), RandomCrop(size=48), CrackPatches(size=16, per_image=4), WholeImage()]
)
def test_they_move_with_the_mask(prepared: PreparedData, maps: dict[int, Any], crop: Any) -> None:
    pipeline = Pipeline(resize=Native(), crop=crop, augmentation=ALL, batch_size=2)
    halves = {index: pixels.astype(np.float32) / 2 for index, pixels in maps.items()}
    these = Epochs(prepared, pipeline=pipeline, stride=8, seed=0, maps={"ones": maps, "halves": halves})
    for batch in these.batches_of(0):
        assert torch.equal(batch.maps["ones"], (1 - batch.target) * batch.valid)
        assert torch.equal(batch.maps["halves"], batch.maps["ones"].float() / 2)
        assert batch.maps["ones"].any()


def test_they_change_nothing_else(prepared: PreparedData, maps: dict[int, Any]) -> None:
    pipeline = Pipeline(resize=Native(), crop=RandomCrop(size=16), augmentation=ALL)
    plain, mapped = (
        list(Epochs(prepared, pipeline=pipeline, stride=8, seed=0, maps=given).batches_of(0))
        for given in ({}, {"ones": maps})
    )
    assert all(not batch.maps for batch in plain)
    for left, right in zip(plain, mapped, strict=True):
        assert all(torch.equal(*pair) for pair in zip(pixels(left), pixels(right), strict=True))


@pytest.mark.parametrize("wrong", [None, np.ones((3, 3), np.uint8)])
def test_they_must_be_given_for_each_training_image_in_its_size(
    prepared: PreparedData, maps: dict[int, Any], wrong: Any
) -> None:
    index = prepared.indices("train")[2]
    maps = {key: value for key, value in {**maps, index: wrong}.items() if value is not None}
    with pytest.raises(DataError, match=f"{prepared.entries[index].name}: a map `ones`"):
        Epochs(prepared, pipeline=Pipeline(resize=Native()), stride=8, seed=0, maps={"ones": maps})
