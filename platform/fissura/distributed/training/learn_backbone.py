"""Learns the backbones of a study from its own images, each once, after its teacher."""

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
from fissura.core.text import count
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
    """The weights' file of a `trained` or `distilled` backbone, learnt first if missing.

    A tenth of the images (whole groups) is held out to follow the training; the teacher of a distillation is
    trained on the same images before. Both start from the weights that `training` names.

    Raises:
        DataError: nothing can be learnt from the images.
    """
    # without a teacher, the distillation settings do not matter
    own_training = (
        training
        if backbone.weights == "distilled"
        else training.model_copy(update={"distillation": Distillation()})
    )
    directory_key = digest(
        [backbone.plain(), own_training.named_by(), [[keyed.key, keyed.image.label] for keyed in images]]
    )
    directory = storage / f"{backbone.kind}-{backbone.weights}-{directory_key}"
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
            training=own_training,
            images=learnt,
            directory=directory,
            runtime=LocalRuntime(cpus=cpus),
            teacher=teacher,
            on_epoch=on_epoch,
        )
    else:
        result = train_backbone_on_workers(
            backbone,
            training=own_training,
            images=learnt,
            directory=directory,
            workers=workers,
            teacher=teacher,
            cpus_per_worker=cpus,
            address=address,
            say=lambda line: say(f"{name}: {line}"),
        )
    say(f"{name}: learnt from {count(len(learnt.train), 'image')} in {result['seconds']:.0f} s, {directory}")
    return directory / WEIGHTS


def _training_images(images: Sequence[KeyedImage], classes: Sequence[str]) -> TrainingImages:
    import numpy as np

    labels = np.array([keyed.image.label for keyed in images])
    held_out = fold_of(labels, [keyed.group for keyed in images], folds=TENTHS, seed=0) == 0
    return TrainingImages(
        read=lambda index: images[index].read(),
        labels=labels.tolist(),
        classes=tuple(classes),
        train=np.flatnonzero(~held_out).tolist(),
        validation=np.flatnonzero(held_out).tolist(),
        digest=digest([keyed.key for keyed in images]),
    )
