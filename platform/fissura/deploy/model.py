"""A finished run as a model that answers for photographs, built from the run directory alone.

Evaluation, export, the service and batches share its predictor.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from fissura.classification.run import Classifier
from fissura.core.errors import DataError
from fissura.core.rules import no_probability
from fissura.metrics import level_of
from fissura.records.manifest import Manifest, trained_on
from fissura.records.run_files import read_manifest
from fissura.segmentation.evaluation import threshold_of
from fissura.segmentation.inference import OnWindows
from fissura.segmentation.predict import Predictor
from fissura.training.checkpoint import RECIPE
from fissura.training.experiment import task_of_file

if TYPE_CHECKING:
    from fissura.deploy.export import Bundle, Quantise

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, eq=False)
class Segmented:
    """The crack probability of each pixel times 255, rounded; the threshold (0..1) makes a mask of it."""

    probability: UInt8[np.ndarray, "h w"]
    threshold: float

    @cached_property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The pixels whose probability is at least the threshold."""
        return self.probability >= level_of(self.threshold)


@dataclass(frozen=True)
class Classified:
    """The class of an image, and the decision value of each pair of classes (see `Compact.decision`)."""

    label: str
    decisions: tuple[float, ...]


class Answer(Protocol):
    """What a model says of one image; what of it is told, and drawn, its task knows."""


class Model(Protocol):
    """A finished run that answers for photographs. Where it `batches`, images go through it together."""

    @property
    def manifest(self) -> Manifest:
        """The run's."""
        ...

    @property
    def task(self) -> str:
        """The name of its task."""
        ...

    @property
    def batches(self) -> bool:
        """Whether several images go through the network together."""
        ...

    @property
    def card(self) -> dict[str, Any]:
        """What a reader wants to know of the model, in JSON types."""
        ...

    def __call__(self, images: Sequence[Pixels], *, on_windows: OnWindows | None = None) -> Sequence[Answer]:
        """The answer for each RGB image, of any sizes. What `on_windows` raises ends it."""
        ...

    def watched(self, on_windows: OnWindows) -> Self:
        """The same model, which tells `on_windows` of each image that it sees in windows."""
        ...


class TaskModel(Protocol):
    """A task's part of what becomes of a finished run."""

    def open(self, run: Path, *, device: torch.device, threshold: float | None) -> Model:
        """See `open_model`."""
        ...

    def export(self, run: Path, *, out: Path, quantise: "Quantise", threshold: float | None) -> "Bundle":
        """See `export_run`."""
        ...


def open_model(run: Path, *, device: torch.device, threshold: float | None = None) -> Model:
    """The model of a finished run directory.

    Args:
        threshold: crack probability (0..1) of a segmentation; by default the recipe's, or the one that the
            run's evaluation chose on validation images.

    Raises:
        DataError: no finished run, files of another one, or no threshold to be had.
        SpecError: its recipe or manifest is not one of this version's.
    """
    return task_of_file(run / RECIPE).model.open(run, device=device, threshold=threshold)


@dataclass(frozen=True)
class SegmentationModel:
    """A segmenter with its threshold."""

    manifest: Manifest
    predictor: Predictor
    threshold: float
    task: str = "segmentation"

    @property
    def batches(self) -> bool:
        """Whether several images go through the network together."""
        return self.predictor.device.type != "cpu"

    @property
    def card(self) -> dict[str, Any]:
        """What a reader wants to know of the model, in JSON types."""
        return {
            **_card(self.manifest, self.task),
            "threshold": self.threshold,
            "classes": ["background", "crack"],
        }

    def __call__(self, images: Sequence[Pixels], *, on_windows: OnWindows | None = None) -> list[Segmented]:
        """The answer for each RGB image, of any sizes. What `on_windows` raises ends it."""
        maps = self.predictor.many(images, on_windows=on_windows)
        return [Segmented(probability, self.threshold) for probability in maps]

    def watched(self, on_windows: OnWindows) -> "SegmentationModel":
        """See `Model`."""
        return replace(self, predictor=replace(self.predictor, on_windows=on_windows))


@dataclass(frozen=True)
class ClassificationModel:
    """A classifier of whole images."""

    manifest: Manifest
    classifier: Classifier
    task: str = "classification"
    batches: bool = True

    @property
    def card(self) -> dict[str, Any]:
        """What a reader wants to know of the model, in JSON types."""
        return {**_card(self.manifest, self.task), "classes": list(self.classifier.compact.classes)}

    def __call__(self, images: Sequence[Pixels], *, on_windows: OnWindows | None = None) -> list[Classified]:
        """The answer for each RGB image, of any sizes, each of which is seen as one window."""
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, image in enumerate(images):
            places[image.shape].append(place)
        answers: dict[int, Classified] = {}
        compact = self.classifier.compact
        class_of = dict(zip(compact.labels, compact.classes, strict=True))
        for alike in places.values():
            labels, decisions = self.classifier([images[place] for place in alike])
            if on_windows is not None:
                on_windows(1, 1, *images[alike[0]].shape[:2])
            for place, label, values in zip(alike, labels, decisions, strict=True):
                answers[place] = Classified(class_of[int(label)], tuple(float(value) for value in values))
        return [answers[place] for place in range(len(images))]

    def watched(self, on_windows: OnWindows) -> "ClassificationModel":
        """Itself: an image is one window."""
        return self


class _SegmentationRuns:
    """See `TaskModel`."""

    def open(self, run: Path, *, device: torch.device, threshold: float | None) -> SegmentationModel:
        manifest, predictor = read_manifest(run), Predictor.open(run, device=device)
        if threshold is None:
            threshold = threshold_of(run, predictor.recipe)
        elif wrong := no_probability(threshold):
            raise DataError(wrong)
        return SegmentationModel(manifest, predictor, threshold)

    def export(self, run: Path, *, out: Path, quantise: "Quantise", threshold: float | None) -> "Bundle":
        from fissura.deploy import export

        return export.export_segmentation_run(run, out=out, quantise=quantise, threshold=threshold)


class _ClassificationRuns:
    """See `TaskModel`."""

    def open(self, run: Path, *, device: torch.device, threshold: float | None) -> ClassificationModel:
        manifest = read_manifest(run)
        _check_no_threshold(run, threshold)
        return ClassificationModel(manifest, Classifier.open(run, device=device))

    def export(self, run: Path, *, out: Path, quantise: "Quantise", threshold: float | None) -> "Bundle":
        from fissura.deploy import export

        _check_no_threshold(run, threshold)
        return export.export_classification_run(run, out=out, quantise=quantise)


SEGMENTATION_MODEL: TaskModel = _SegmentationRuns()
CLASSIFICATION_MODEL: TaskModel = _ClassificationRuns()


def _check_no_threshold(run: Path, threshold: float | None) -> None:
    if threshold is not None:
        raise DataError(f"{run}: a threshold is for segmentation, and this run classifies; leave it out")


def _card(manifest: Manifest, task: str) -> dict[str, Any]:
    return {
        "task": task,
        "run": manifest.run_id,
        "recipe": manifest.recipe.get("name"),
        "parameters": manifest.parameters,
        **trained_on(manifest.data),
        "finished": manifest.finished.isoformat(timespec="seconds"),
        "code_version": manifest.code_version,
    }
