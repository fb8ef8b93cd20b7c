"""A recipe of the second task: features of a backbone, whitened, and a classifier on them."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from fissura.classical.compression import Compression
from fissura.classical.estimators import (
    SVM,
    AnyClassifier,
    AnyWhitening,
    BackboneHead,
    NoWhitening,
    ZCAWhitening,
)
from fissura.classification.backbone_training import BackboneTraining
from fissura.core.errors import SpecError
from fissura.data.labelled import parse_labelled
from fissura.models.backbones import Backbone
from fissura.training.experiment import Experiment, TaskInputs

LEARNT = ("trained", "distilled")
"""Weights that a training on the user's own images gives."""


class ClassifierRecipe(Experiment):
    """Everything that decides a classifier of images.

    `backbone` gives the features of an image, `whitening` and `classifier` are fitted to those of the
    training images, `compression` makes the classifier's file small. A trial is scored by cross-validation
    over `folds` folds of the training images, stratified by class, whole groups at a time.

    `training` trains a backbone whose weights are "trained" or "distilled", on `backbone_share` of the
    training images (whole groups), which the classifier and its folds then never see: scores on images whose
    labels taught the features would be too good.

    A classifier `head` is the one that the backbone was trained with. It reads the features unwhitened,
    whatever `whitening` says, and is not fitted in the folds.
    """

    task = "classification"
    networks = ("backbone.", "training.")
    leaves_runs = False
    no_plan = "searches classifiers, whose settings take milliseconds in batches of their own"
    metrics: ClassVar[frozenset[str]] = frozenset(
        {"cv/f1", "cv/accuracy", "cv/precision", "cv/recall", "bytes", "microseconds"}
    )

    backbone: Backbone = Backbone(kind="mobilenet_v3")
    training: BackboneTraining = BackboneTraining()
    backbone_share: float = Field(0.0, ge=0, le=0.9)
    whitening: AnyWhitening = ZCAWhitening()
    classifier: AnyClassifier = SVM()
    compression: Compression = Compression()
    folds: int = Field(5, ge=2, le=20)

    @model_validator(mode="after")
    def _a_backbone_learns_from_images_of_its_own(self) -> Self:
        if self.backbone.weights in LEARNT and self.backbone_share == 0:
            raise ValueError(
                f"`backbone_share`: a backbone of weights `{self.backbone.weights}` learns from a share of"
                " the training images; is 0: set `backbone_share` to 0.4, say"
            )
        return self

    @model_validator(mode="after")
    def _a_head_is_one_that_its_backbone_learnt_with(self) -> Self:
        if not isinstance(self.classifier, BackboneHead):
            return self
        broken = []
        if self.backbone.weights not in LEARNT:
            broken.append(
                "`classifier.kind`: head is the one that a backbone learnt with from the user's images, and"
                f" weights `{self.backbone.weights}` come without one: set `backbone.weights` to trained or"
                " distilled, and `backbone_share`; or take the classifier svm or forest"
            )
        if self.compression.method != "none":
            broken.append(
                "`compression.method`: a head is one row of weights a class, and"
                f" `{self.compression.method}` makes nothing of it smaller: take `none`, and"
                " `compression.bits: 8` for int8"
            )
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @property
    def whitens_by(self) -> AnyWhitening:
        """The whitening that its classifier uses."""
        return NoWhitening() if isinstance(self.classifier, BackboneHead) else self.whitening

    @property
    def weights_wanted(self) -> tuple[Backbone, ...]:
        """The backbones that need published weights or a file of them: its own, or those that its training
        and the teacher's start from."""
        if self.backbone.weights not in LEARNT:
            return (self.backbone,)
        started = [self.backbone.model_copy(update={"weights": self.training.start})]
        if self.backbone.weights == "distilled":
            spec = self.training.distillation
            started.append(
                self.backbone.model_copy(update={"kind": spec.teacher, "weights": spec.teacher_start})
            )
        return tuple(started)

    def named_by(self) -> dict[str, Any]:
        """See `Experiment.named_by`; a head's whitening is not used and not named."""
        used = {"training": self.training.named_by(), "whitening": self.whitens_by.plain()}
        if isinstance(self.classifier, BackboneHead):
            used["compression"] = Compression(bits=self.compression.bits).plain()
        return {**self.plain(), **used}

    @property
    def length(self) -> int:
        """A trial is one step."""
        return 1

    def measured(self, metric: str, *, on: str) -> str:
        """See `Experiment.measured`."""
        if not metric.startswith("cv/"):
            return ""
        if isinstance(self.classifier, BackboneHead):
            return f"on the images of the training split of {on} that the backbone never saw"
        return f"in {self.folds}-fold cross-validation on the training split of {on}"


def classifier_of(experiment: Experiment) -> ClassifierRecipe:
    """The recipe, if it is one of classification.

    Raises:
        SpecError: it segments images.
    """
    if isinstance(experiment, ClassifierRecipe):
        return experiment
    raise SpecError(f"recipe `{experiment.name}` segments images; name one that classifies them")


CLASSIFICATION_INPUTS = TaskInputs(ClassifierRecipe, "classifier", parse_labelled)
