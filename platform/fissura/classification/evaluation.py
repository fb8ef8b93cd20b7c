"""Evaluates a classifier on images, clean and under interference."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import UInt8

from fissura.classification.cross_validation_score import microseconds
from fissura.classification.run import CLASSIFIER, Classifier
from fissura.core.errors import DataChanged, DataError
from fissura.core.seeding import derive
from fissura.data.interference import Interference, disturb
from fissura.data.labelled import KeyedImage
from fissura.records.class_store import CLEAN, ClassifiedImage, ClassifierFacts, write_classes
from fissura.records.run_files import read_manifest

Condition = Literal["clean"] | Interference
CONDITIONS: tuple[str, ...] = (CLEAN, *get_args(Interference))
BATCH = 32


class Unread(NamedTuple):
    """An image that was left out, and why."""

    name: str
    reason: str


def evaluate_classifier(
    run: Path,
    images: Sequence[KeyedImage],
    *,
    content: str,
    split: Literal["train", "test"],
    conditions: Sequence[str],
    device: torch.device,
    on_image: Callable[[int, int], None] | None = None,
) -> list[Unread]:
    """Classifies the images of a split under each of `conditions`; merges the rows into the run's
    `classes.parquet`. Returns the images that cannot be read, which are left out.

    An image's interference is derived from its content, so that every run sees the same one.

    Raises:
        DataError: no finished run, no image of the split, or an unknown condition.
    """
    unknown = [condition for condition in conditions if condition not in CONDITIONS]
    if unknown:
        raise DataError(
            *(f"condition `{name}` is not known; known are {', '.join(CONDITIONS)}" for name in unknown)
        )
    chosen = [image for image in images if image.image.split == split]
    if not chosen:
        raise DataError(f"no {split} images; name another --split, or a data set that has them")
    manifest, classifier = read_manifest(run), Classifier.open(run, device=device)
    unread: dict[str, Unread] = {}
    rows: list[ClassifiedImage] = []
    done = 0
    for condition in conditions:
        for batch, pixels in _batches(_readable(chosen, condition, unread)):
            predictions, decisions = classifier(pixels)
            for image, prediction, decision in zip(batch, predictions, decisions, strict=True):
                rows.append(
                    ClassifiedImage(
                        run_id=manifest.run_id,
                        recipe=classifier.recipe.name,
                        configuration=classifier.recipe.configuration,
                        seed=classifier.recipe.seed,
                        dataset=image.source,
                        data_digest=content,
                        split=split,
                        condition=condition,
                        image=image.image.name,
                        group=image.group,
                        label=image.image.label,
                        prediction=int(prediction),
                        decision=decision.astype(np.float32),
                        data_name=image.data_name,
                    )
                )
            done += len(batch)
            if on_image is not None:
                on_image(done, len(chosen) * len(conditions))
    facts = ClassifierFacts(
        classes=classifier.compact.classes,
        classifier_bytes=(run / CLASSIFIER).stat().st_size,
        classifier_microseconds=microseconds(
            classifier.compact, np.zeros((32, classifier.network.dimensions), np.float32)
        ),
        backbone_bytes=4 * manifest.parameters,
    )
    write_classes(run, rows, manifest, facts=facts)
    return list(unread.values())


def _readable(
    images: Iterable[KeyedImage], condition: str, unread: dict[str, Unread]
) -> Iterator[tuple[KeyedImage, UInt8[np.ndarray, "h w 3"]]]:
    for image in images:
        try:
            pixels = under(image, condition=condition)
        except DataChanged:
            raise
        except DataError as error:
            unread.setdefault(image.image.name, Unread(image.image.name, str(error)))
            continue
        yield image, pixels


def under(image: KeyedImage, *, condition: str) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image, `clean` or under the interference that every run sees.

    Raises:
        DataError: it cannot be read.
    """
    pixels = image.read()
    if condition == CLEAN:
        return pixels
    kind: Interference = condition  # type: ignore[assignment]
    return disturb(pixels, kind=kind, seed=derive(0, image.key))


def _batches(
    read: Iterable[tuple[KeyedImage, UInt8[np.ndarray, "h w 3"]]],
) -> Iterator[tuple[list[KeyedImage], list[UInt8[np.ndarray, "h w 3"]]]]:
    """Images of one size together, in order."""
    images: list[KeyedImage] = []
    pixels: list[UInt8[np.ndarray, "h w 3"]] = []
    for image, array in read:
        if pixels and (len(pixels) == BATCH or pixels[0].shape != array.shape):
            yield images, pixels
            images, pixels = [], []
        images.append(image)
        pixels.append(array)
    if pixels:
        yield images, pixels
