"""Checks that a model can be trained on data: training and validation images, with cracks in both."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fissura.core.errors import DataError
from fissura.data.cache import prepare
from fissura.data.content import sources
from fissura.data.dataset import Dataset
from fissura.data.prepared import PreparedData
from fissura.data.resize import AnyResize, Fixed
from fissura.data.sample import PURPOSES, Split


def prepare_training(
    datasets: Sequence[Dataset],
    *,
    resize: AnyResize,
    directory: Path,
    content: str | None = None,
    on_sample: Callable[[int, int], None] | None = None,
) -> PreparedData:
    """`prepare` for data that a model can be trained on.

    Raises:
        DataError: as `prepare`; also names each split that has no image, or whose masks at the working size
            hold no valid crack pixel.
    """
    data = prepare(datasets, resize=resize, directory=directory, content=content, on_sample=on_sample)
    problems = [
        problem
        for split, purpose in PURPOSES.items()
        if (problem := _problem(data, datasets, resize, split=split, purpose=purpose))
    ]
    if problems:
        raise DataError(*problems)
    return data


def _problem(
    data: PreparedData, datasets: Sequence[Dataset], resize: AnyResize, *, split: Split, purpose: str
) -> str:
    """Why a split cannot be used; "" if it can."""
    named, indices = ", ".join(map(str, datasets)), data.indices(split)
    rule = f"a training needs images with a crack to {purpose}"
    if not indices:
        return f"{named}: {rule}, and there are no {split} images; add some, or name another data set"
    # stops at the first crack
    if any(np.any(data.mask(index) & data.valid(index)) for index in indices):
        return ""
    images = f"{len(indices)} {split} images" if len(indices) > 1 else f"one {split} image"
    if isinstance(resize, Fixed) and _cracked(datasets, split):
        return (
            f"{named}: {rule}, and the masks of the {images} hold no crack pixel once they are resized to"
            f" {resize.width}x{resize.height} (width x height); set data.resize.masks=area, raise"
            " data.resize.width and data.resize.height, or train at the images' own size"
        )
    return (
        f"{named}: {rule}, and the masks of the {images} hold no crack pixel; add {split} images with a"
        " crack, or name another data set"
    )


def _cracked(datasets: Sequence[Dataset], split: Split) -> bool:
    """Whether a mask of the split holds a valid crack pixel at its own size."""
    for source in sources(datasets):
        if source.sample.split == split:
            mask, valid = source.dataset.read_mask(source.sample), source.dataset.read_valid(source.sample)
            if np.any(mask if valid is None else mask & valid):
                return True
    return False
