"""The base of data sets with pixel masks: facts, samples, and how their files are read."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from fissura.core.errors import DataError
from fissura.core.spec import Spec
from fissura.data.dataset_names import DataName
from fissura.data.images import read_rgb
from fissura.data.masks import MaskReading, decode_mask
from fissura.data.options import options_text
from fissura.data.sample import Sample
from fissura.data.splits import carve
from fissura.data.turns import check_size
from fissura.data.walk import Found, Walk


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a published data set.

    `obtain` says where a user gets it; `layout` is the expected folder tree in one line; `counts` are the
    expected numbers of samples, by split ("train", "val", "test") where splits are official, else under
    "total"; empty where nothing is expected.
    """

    title: str
    licence: str
    citation: str
    obtain: str
    layout: str
    counts: dict[str, int]


class Dataset(Spec, ABC):
    """A data set of images and crack masks under one folder, `root`.

    `seed` decides every split that is not official. A `val` split is carved out of `train` where none is
    official. `name` is its name in tables, by default the last part of `root`.
    """

    info: ClassVar[DatasetInfo]

    kind: str
    root: Path
    name: DataName | None = None
    seed: int = Field(0, ge=0)
    validation_share: float = Field(0.15, gt=0, lt=1)

    def __str__(self) -> str:
        """The data set as `--data` names it."""
        return f"{self.kind}:{self.root}{options_text(self)}"

    @abstractmethod
    def gather(self, walk: Walk) -> None:
        """Adds all samples to `walk`, in their official splits, or all in "train"."""

    def divide(self, samples: list[Sample]) -> list[Sample]:
        """Draws the splits that are not official: here a "val" out of "train" where there is none."""
        if any(sample.split == "val" for sample in samples):
            return samples
        return carve(samples, source="train", target="val", share=self.validation_share, seed=self.seed)

    @property
    def layout(self) -> str:
        """The expected folder tree in one line, with this data set's own options."""
        return self.info.layout

    def find(self) -> Found:
        """The contents of the folders. Opens no image, and never raises for what it finds."""
        walk = Walk(self.root, self.layout)
        self.gather(walk)
        found = walk.found()
        return replace(found, samples=tuple(self.divide(list(found.samples))))

    def samples(self) -> list[Sample]:
        """All samples, sorted by name.

        Raises:
            DataError: with all problems of the layout at once: a missing folder, unpaired files, no image at
            all.
        """
        found = self.find()
        if found.problems:
            raise DataError(*found.problems)
        return list(found.samples)

    def decode_mask(self, path: Path) -> MaskReading:
        """One mask file, with what is odd about it. Data sets whose masks are not plain two-level images
        override it.
        """
        return decode_mask(path)

    def read_image(self, sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
        """The photograph, RGB, 0..255.

        Raises:
            DataError: the file cannot be read as an 8-bit photograph.
        """
        return read_rgb(sample.image)

    def read_mask(self, sample: Sample) -> UInt8[np.ndarray, "h w"]:
        """The mask: 0 background, 1 crack, of the photograph's size.

        Raises:
            DataError: the file is not a mask, or its size is not the photograph's.
        """
        return self.inspect_mask(sample).mask

    def inspect_mask(self, sample: Sample, *, size: tuple[int, ...] | None = None) -> MaskReading:
        """As `read_mask`, with what is odd about the file. `size` is the photograph's (height, width), where
        that is known."""
        reading = self.decode_mask(sample.mask)
        check_size(reading.mask.shape, path=sample.mask, image=sample.image, size=size)
        return reading

    def read_valid(
        self, sample: Sample, *, size: tuple[int, ...] | None = None
    ) -> UInt8[np.ndarray, "h w"] | None:
        """The valid pixels: 1 valid, 0 not, of the photograph's size (`size`, where it is known); None where
        every pixel counts.

        Raises:
            DataError: the file is not a mask, or its size is not the photograph's.
        """
        if sample.valid is None:
            return None
        valid = decode_mask(sample.valid).mask
        check_size(valid.shape, path=sample.valid, image=sample.image, size=size)
        return valid
