"""The backbones of a study that are learnt from its own images, each once, its teacher before it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fissura.classification.backbone import train_backbone
from fissura.classification.backbone_images import TrainingImages
from fissura.classification.backbone_training import BackboneTraining
from fissura.classification.distillation import Distillation
from fissura.classification.roles import TENTHS, fold_of
from fissura.core.progress import Say
from fissura.core.spec import digest
from fissura.data.labelled import KeyedImage
from fissura.distributed.training.backbone import train_backbone_on_workers
from fissura.models.backbones import Backbone
from fissura.training.checkpoint import WEIGHTS
from fissura.training.runtime import LocalRuntime


def learn_backbone(
    backbone: Backbone,
    training: BackboneTraining,
    images: Sequence[KeyedImage],
    *,
    classes: Sequence[str],
    storage: Path,
    workers: int,
    cpus: int,
    address: str | None,
    say: Say,
) -> Path:
    """The weights' file of a `trained` or `distilled` backbone, learnt first where it is not there.

    A tenth of the images (whole groups) is held out to follow the training; the teacher of a distillation is
    trained on the same images before. Both start from the weights that `training` names.

    Raises:
        DataError: nothing can be learnt from the images.
    """
    # how a student is to be taught is nothing to a backbone without a teacher
    own = (
        training
        if backbone.weights == "distilled"
        else training.model_copy(update={"distillation": Distillation()})
    )
    known = digest([backbone.plain(), own.named_by(), [[one.key, one.image.label] for one in images]])
    directory = storage / f"{backbone.kind}-{backbone.weights}-{known}"
    learnt = _training_images(images, classes)
    teacher = None
    if backbone.weights == "distilled":
        teacher = learn_backbone(
            Backbone(kind=training.distillation.teacher, weights="trained", input_size=backbone.input_size),
            training.model_copy(update={"start": training.distillation.teacher_start}),
            images,
            classes=classes,
            storage=storage,
            workers=workers,
            cpus=cpus,
            address=address,
            say=say,
        )
    name = f"backbone {backbone.kind} ({backbone.weights})"

    def on_epoch(record: dict[str, Any]) -> None:
        shown = ", ".join(f"{key} {value:.4g}" for key, value in record.items() if isinstance(value, float))
        say(f"{name}: epoch {record['epoch']} of {training.epochs}: {shown}")

    if workers == 1:
        result = train_backbone(
            backbone,
            training=own,
            images=learnt,
            directory=directory,
            runtime=LocalRuntime(cpus=cpus),
            teacher=teacher,
            on_epoch=on_epoch,
        )
    else:
        result = train_backbone_on_workers(
            backbone,
            training=own,
            images=learnt,
            directory=directory,
            workers=workers,
            teacher=teacher,
            cpus_per_worker=cpus,
            address=address,
        )
    say(f"{name}: learnt from {len(learnt.train)} images in {result['seconds']:.0f} s, {directory}")
    return directory / WEIGHTS


def _training_images(images: Sequence[KeyedImage], classes: Sequence[str]) -> TrainingImages:
    import numpy as np

    labels = np.array([one.image.label for one in images])
    held_out = fold_of(labels, [one.group for one in images], folds=TENTHS, seed=0) == 0
    return TrainingImages(
        read=lambda index: images[index].read(),
        labels=labels.tolist(),
        classes=tuple(classes),
        train=np.flatnonzero(~held_out).tolist(),
        validation=np.flatnonzero(held_out).tolist(),
        digest=digest([one.key for one in images]),
    )
