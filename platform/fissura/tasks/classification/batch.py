"""Batches of classified images: their classes, and scores by their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from fissura.batches.evaluation import check_some
from fissura.batches.pictures import png
from fissura.batches.scorer import ModelCard, Result
from fissura.batches.source import ImageSource
from fissura.batches.task_batch import ScoredImages, TaskBatch, Truth
from fissura.core.errors import DataError
from fissura.data.dataset_names import name_of
from fissura.data.datasets import Named, kind_of
from fissura.data.labelled import (
    LabelledDataset,
    LabelledImage,
    image_keys,
    labelled_kinds,
    parse_labelled,
)
from fissura.data.labelled.keys import digest_of_keyed
from fissura.data.sample import Split
from fissura.data.sources import root_of
from fissura.metrics import AnyProtocol
from fissura.metrics.classification import TELLING_APART, class_scores, confusion, one_class


class ClassFound(Result):
    """The name of the class, and the decision value of each pair of classes."""

    label: str
    decisions: tuple[float, ...]


@dataclass(frozen=True)
class Labels(Truth):
    """The label of each image of a test set: an index into the classes, lowest first; what it is called, and
    the digest of what it holds."""

    task = "classification"

    classes: tuple[str, ...]
    of: Mapping[str, int]
    data_name: str
    data_digest: str

    def scores(
        self, scored_images: ScoredImages, card: ModelCard, *, protocols: Sequence[AnyProtocol]
    ) -> dict[str, Any]:
        """By the model's classes."""
        classes = card.classes
        if len(classes) != len(self.classes):
            raise DataError(
                f"a test set has the classes of its model: it has {', '.join(self.classes)}, the model"
                f" {', '.join(classes)}; name another data set, or another --model"
            )
        rows = {
            row["image"]: row
            for row in scored_images.rows.select(["image", "label", "decisions"]).to_pylist()
        }
        foreign = sorted({rows[name]["label"] for name in scored_images.scored} - set(classes))
        if foreign:
            raise DataError(
                f"a label is a class of the model ({', '.join(classes)}), not {', '.join(foreign)}"
            )
        known = sorted(classes) == sorted(self.classes)
        class_index = [classes.index(name) if known else index for index, name in enumerate(self.classes)]
        labels = np.array([class_index[self.of[name]] for name in scored_images.scored], np.int64)
        predictions = np.array(
            [classes.index(rows[name]["label"]) for name in scored_images.scored], np.int64
        )
        # in single precision, as the store of evaluated classifiers keeps them
        decisions = np.array([rows[name]["decisions"] for name in scored_images.scored], np.float32)
        scores = class_scores(labels, predictions, classes=len(classes), decisions=decisions)
        renaming = f"the data's classes {', '.join(self.classes)} are taken for {', '.join(classes)}"
        only = one_class(labels, classes)
        return {
            "data_name": self.data_name,
            "data_digest": self.data_digest,
            "classes": list(classes),
            "scores": {
                name: None if only and name.startswith(TELLING_APART) else value
                for name, value in asdict(scores).items()
            },
            "confusion": confusion(labels, predictions, len(classes)).tolist(),
            "remarks": [*([] if known else [renaming]), *([only] if only else [])],
        }


class ClassificationBatch(TaskBatch):
    """See `TaskBatch`."""

    result = ClassFound
    columns = MappingProxyType({"label": pa.string(), "decisions": pa.list_(pa.float64())})

    def row(self, result: ClassFound) -> dict[str, Any]:
        """See `TaskBatch`."""
        return result.model_dump(include={"label", "decisions"})

    def test_set(self, named: Named, *, split: Split, directory: Path) -> tuple[ImageSource, Truth] | None:
        """See `TaskBatch`. Squares that are cut from images are sent as PNG."""
        if kind_of(named) not in labelled_kinds():
            return None
        (labelled,) = parse_labelled([named])
        keyed = image_keys([labelled], directory=directory)
        images = [image.image for image in keyed if image.image.split == split]
        check_some(images, named, split)
        root = root_of(labelled)
        source = ImageSource.of_files(
            f"{labelled}, {split}",
            [(image.name, image.path) for image in images if image.box is None],
            root=root,
        )
        squares = {image.name: partial(_square, labelled, image) for image in images if image.box is not None}
        label_of = {image.name: image.label for image in images}
        labels = Labels(labelled.classes(), label_of, name_of(labelled.plain()), digest_of_keyed(keyed))
        return ImageSource(source.label, {**source.readers, **squares}, root), labels


def _square(dataset: LabelledDataset, image: LabelledImage) -> bytes:
    return png(dataset.read(image))


CLASSIFICATION_BATCH: TaskBatch = ClassificationBatch()
