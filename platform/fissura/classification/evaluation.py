"""The judgement of a classifier on images: as they are, and under interference."""

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
    """Classifies the images of a split under each of `conditions`; the rows are merged into the run's
    `classes.parquet`. What cannot be read is left out, and given by name.

    The interference of an image follows from its content alone, so that every run sees the same one.

    Raises:
        DataError: no finished run, no image of the split, or an unknown condition.
    """
    unknown = [condition for condition in conditions if condition not in CONDITIONS]
    if unknown:
        raise DataError(
            *(f"condition `{name}` is not known; known are {', '.join(CONDITIONS)}" for name in unknown)
        )
    chosen = [one for one in images if one.image.split == split]
    if not chosen:
        raise DataError(f"no {split} images; name another --split, or a data set that has them")
    manifest, classifier = read_manifest(run), Classifier.open(run, device=device)
    unread: dict[str, Unread] = {}
    rows: list[ClassifiedImage] = []
    done = 0
    for condition in conditions:
        for batch, pixels in _batches(_readable(chosen, condition, unread)):
            predictions, decisions = classifier(pixels)
            for one, prediction, decision in zip(batch, predictions, decisions, strict=True):
                rows.append(
                    ClassifiedImage(
                        run_id=manifest.run_id,
                        recipe=classifier.recipe.name,
                        configuration=classifier.recipe.configuration,
                        seed=classifier.recipe.seed,
                        dataset=one.source,
                        data_digest=content,
                        split=split,
                        condition=condition,
                        image=one.image.name,
                        group=one.group,
                        label=one.image.label,
                        prediction=int(prediction),
                        decision=decision.astype(np.float32),
                        data_name=one.data_name,
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
    for one in images:
        try:
            pixels = under(one, condition=condition)
        except DataChanged:
            raise
        except DataError as error:
            unread.setdefault(one.image.name, Unread(one.image.name, str(error)))
            continue
        yield one, pixels


def under(image: KeyedImage, *, condition: str) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image as it is (`clean`), or under the interference that every run sees it under.

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
    for one, array in read:
        if pixels and (len(pixels) == BATCH or pixels[0].shape != array.shape):
            yield images, pixels
            images, pixels = [], []
        images.append(one)
        pixels.append(array)
    if pixels:
        yield images, pixels
