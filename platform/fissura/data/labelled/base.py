"""The base of data sets of labelled images: classes from lowest to highest, images, groups, a test split."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from fissura.core.errors import DataError
from fissura.core.spec import Spec
from fissura.data.dataset import DatasetInfo
from fissura.data.dataset_names import DataName
from fissura.data.images import read_rgb

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelledImage:
    """A photograph, or a part of one, with its class.

    `name` is unique in its data set. `label` is an index into the classes. Images of one `group`
    show one scene: this project draws them into one split, and they belong in one fold. `box` is (top, left,
    height, width) in pixels of the upright image in `path`, or None for all of it.
    """

    name: str
    label: int
    group: str
    split: Literal["train", "test"]
    path: Path
    box: Box | None = None


@dataclass(frozen=True)
class Listing:
    """The content of a data set: its images, sorted by name; the problems that make it unusable; remarks,
    such as skipped files.
    """

    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class LabelledDataset(Spec, ABC):
    """A data set of labelled images.

    `name` is its name in tables, by default the last part of its root. `seed` decides all random draws.
    `test_share` of the images, 0..1, whole groups, become the test split if the data define none.
    """

    info: ClassVar[DatasetInfo]

    kind: str
    name: DataName | None = None
    seed: int = Field(0, ge=0)
    test_share: float = Field(0.2, gt=0, lt=1)

    def __str__(self) -> str:
        """The data set as `--data` names it."""
        return self.label_text

    @property
    @abstractmethod
    def label_text(self) -> str:
        """The text that names the data set on the command line, such as `class_folder:/data/walls`."""

    @abstractmethod
    def resolved(self) -> Self:
        """The same data set with an absolute root."""

    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, lowest first: index 0 is no crack, or the least severe one.

        Raises:
            DataError: the classes are folders, and these are not such a data set.
        """

    @abstractmethod
    def find(self, *, directory: Path | None = None) -> Listing:
        """The contents of the folders; never raises for what it finds.

        The cache folder `directory` keeps the results by the files' hashes, so that a second call is fast.
        """

    def images(self, *, directory: Path | None = None) -> list[LabelledImage]:
        """All images, sorted by name; `directory` as for `find`.

        Raises:
            DataError: with all problems at once: a missing or empty folder, one class only, no image at all.
        """
        listing = self.find(directory=directory)
        if listing.problems:
            raise DataError(*listing.problems)
        return list(listing.images)

    def read(self, image: LabelledImage) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of `image`, RGB, 0..255.

        Raises:
            DataError: the file, which is named, cannot be read as an 8-bit photograph, or is smaller than
            the box.
        """
        pixels = read_rgb(image.path)
        if image.box is None:
            return pixels
        top, left, height, width = image.box
        cut = pixels[top : top + height, left : left + width]
        if cut.shape[:2] != (height, width):
            raise DataError(
                f"{image.path}: the image holds the square of {width}x{height} pixels at row {top}, column "
                f"{left}: it is {pixels.shape[1]}x{pixels.shape[0]} (width x height) now; list the data again"
            )
        return np.ascontiguousarray(cut)
