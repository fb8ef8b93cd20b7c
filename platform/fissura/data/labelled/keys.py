"""Identifies labelled images by their content: a key each, and a digest of all."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataChanged, DataError
from fissura.core.files import sha256
from fissura.core.spec import digest
from fissura.data.content import FileHashes
from fissura.data.dataset_names import name_of, unique_names
from fissura.data.labelled.base import LabelledDataset, LabelledImage


@dataclass(frozen=True)
class KeyedImage:
    """An image with its data set. `key`, 64 hex digits, is a digest of its file's bytes and its box, not of
    its path. `source` is unique among the data sets of one list: a kind, or `KIND-2`; so is `data_name`, for
    people.
    """

    source: str
    dataset: LabelledDataset
    image: LabelledImage
    key: str
    data_name: str

    @property
    def group(self) -> str:
        """The image's group, unique among all data sets."""
        return f"{self.source}/{self.image.group}"

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels, RGB, 0..255; see `read_keyed`."""
        return read_keyed(self.dataset, self.image, key=self.key)


def read_keyed(dataset: LabelledDataset, image: LabelledImage, *, key: str) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of the image that `key` names, RGB, 0..255.

    Raises:
        DataError: a bad file, which is named.
        DataChanged: the file was removed or changed since it got its key.
    """
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    problem: DataError | OSError | None = None
    try:
        pixels = dataset.read(image)
    except (DataError, OSError) as error:
        problem = error
    try:
        # after reading: a later change does not affect what was read
        same = _key(sha256(image.path), image) == key
    except OSError:
        same = False
    if not same and not image.path.exists():
        raise DataChanged(
            f"{image.path}: is no longer there, so it was moved, renamed or unmounted since the work on the"
            " images began; put it back, or name where the data lie now with --data"
        )
    if not same:
        raise DataChanged(
            f"{image.path}: changed since the work on the images began, and old and new ones are never mixed;"
            " put it back and go on, or begin anew with what there is now"
        )
    if pixels is None:
        raise problem or DataError(f"{image.path}: cannot be read")
    return pixels


def common_classes(datasets: Sequence[LabelledDataset]) -> tuple[str, ...]:
    """The classes of all the data sets, lowest first.

    Raises:
        DataError: their classes differ, or a folder is not a data set.
    """
    classes = [dataset.classes() for dataset in datasets]
    problems = [
        f"{dataset.label_text}: data sets used together have the same classes: it has {', '.join(own)}, and "
        f"{datasets[0].label_text} has {', '.join(classes[0])}; name their folders alike, or set `order`"
        for dataset, own in zip(datasets, classes, strict=True)
        if own != classes[0]
    ]
    if problems or not classes:
        raise DataError(*(problems or ["no labelled data: name at least one data set"]))
    return classes[0]


def check_classes(datasets: Sequence[LabelledDataset], *, directory: Path | None = None) -> None:
    """Checks that the training images are of at least two classes. `directory` as for `image_keys`.

    Raises:
        DataError: they are not; also as `common_classes`.
    """
    classes = common_classes(datasets)
    images = [image for dataset in datasets for image in dataset.images(directory=directory)]
    labels = Counter(image.label for image in images if image.split == "train")
    if len(labels) < 2:
        named = ", ".join(map(str, datasets))
        what = "".join(f"all {count} are of the class `{classes[label]}`" for label, count in labels.items())
        raise DataError(
            f"{named}: a classifier learns to tell classes apart from the train images, and"
            f" {what or 'there are none'}; add train images of another class, or name another data set"
        )


def image_keys(datasets: Sequence[LabelledDataset], *, directory: Path | None = None) -> list[KeyedImage]:
    """All images of all data sets, in order, each with its key. With the cache folder `directory`, unchanged
    files are not read again.

    Raises:
        DataError: with the problems of all data sets, or all unreadable files, at once.
    """
    images: list[tuple[str, LabelledDataset, LabelledImage, str]] = []
    problems: list[str] = []
    labels = unique_names(dataset.kind for dataset in datasets)
    names = unique_names(name_of(dataset.plain()) for dataset in datasets)
    for source, name, dataset in zip(labels, names, datasets, strict=True):
        try:
            images += [(source, dataset, image, name) for image in dataset.images(directory=directory)]
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    hashes = FileHashes(directory).of(image.path for _, _, image, _ in images)
    return [
        KeyedImage(source, dataset, image, _key(hashes[image.path], image), name)
        for source, dataset, image, name in images
    ]


def labelled_digest(datasets: Sequence[LabelledDataset], *, directory: Path | None = None) -> str:
    """Sixteen hex digits that identify the data sets' content: the images' bytes and boxes, names, classes,
    splits and groups. `directory` as for `image_keys`.

    Raises:
        DataError: with all problems at once.
    """
    return digest_of_keyed(image_keys(datasets, directory=directory))


def digest_of_keyed(images: Sequence[KeyedImage]) -> str:
    """`labelled_digest` of images whose keys are known."""
    datasets = dict.fromkeys((item.source, item.dataset) for item in images)
    return digest(
        {
            "classes": [[source, *dataset.classes()] for source, dataset in datasets],
            "images": [
                [item.source, item.image.name, item.image.label, item.image.group, item.image.split, item.key]
                for item in images
            ],
        }
    )


def _key(file: str, image: LabelledImage) -> str:
    if image.box is None:
        return file
    return hashlib.sha256(f"{file}:{','.join(map(str, image.box))}".encode()).hexdigest()
