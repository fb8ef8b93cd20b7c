"""A folder a class: images with a label and without masks."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError
from fissura.core.spec import Spec
from fissura.data.dataset import DatasetInfo
from fissura.data.images import read_rgb
from fissura.data.walk import Walk


@dataclass(frozen=True)
class LabelledImage:
    """One image of class `label`; `name` is unique in its data set: "crack-0001"."""

    name: str
    label: str
    image: Path


class ClassFolder(Spec):
    """Layout: `CLASS/*.jpg`, a folder a class, two classes at least. Every image is read as "train"; it
    has no masks, so nothing can be segmented with it.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="A folder a class (image labels, no masks), such as METU's or SDNET2018's",
        licence="the publisher's",
        citation="",
        obtain="METU: https://data.mendeley.com/datasets/5y9wdsg2zt/2 ; SDNET2018: "
        "https://digitalcommons.usu.edu/all_datasets/48",
        layout="CLASS/*.jpg, a folder a class",
        counts={},
    )
    kind: Literal["class_folder"] = "class_folder"
    root: Path

    def find(self) -> tuple[tuple[LabelledImage, ...], tuple[str, ...], tuple[str, ...]]:
        """(images sorted by name, problems, notes) of the folders. It opens no image and never raises."""
        walk = Walk(self.root, self.info.layout)
        folders = self.root.iterdir() if self.root.is_dir() else ()
        classes = sorted(path.name for path in folders if path.is_dir() and not path.name.startswith("."))
        images = [
            LabelledImage(f"{label}-{stem}", label, path)
            for label in classes
            for stem, path in walk.files(label).items()
        ]
        present = sorted({image.label for image in images})
        if not self.root.is_dir():
            walk.problems.append(f"{self.root}: the data set's folder is missing; expected {walk.layout}")
        elif len(present) < 2:
            walk.problems.append(
                f"{self.root}: a class-folder set has at least two folders with images: this one has "
                f"{len(present)} ({', '.join(present) or 'none'}); expected {walk.layout}"
            )
        ordered = sorted(images, key=lambda image: image.name)
        return tuple(ordered), tuple(walk.problems), tuple(walk.notes)

    def images(self) -> list[LabelledImage]:
        """All images, sorted by name.

        Raises:
            DataError: with all problems of the layout.
        """
        images, problems, _ = self.find()
        if problems:
            raise DataError(*problems)
        return list(images)

    def classes(self) -> list[str]:
        """The class names, sorted; a class's index is its label as a number."""
        return sorted({image.label for image in self.images()})

    def read_image(self, image: LabelledImage) -> UInt8[np.ndarray, "h w 3"]:
        """The photograph, RGB, 0..255; a DataError says what is wrong with the file."""
        return read_rgb(image.image)
