"""Backbones that learn from the user's own images: `trained` on their labels, or `distilled` from a teacher.

A training's directory holds `backbone.json` once it is finished, and then `weights.safetensors`, which
`Backbone.build(weights=...)` takes, and `head.safetensors`, the linear head that was trained with it. Before
that it holds `training.json` (what is trained), the packed images, the state of the last epoch, and a
teacher's features.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fissura.classification.backbone_images import (
    LIST,
    PIXELS,
    PackedImages,
    TrainingImages,
    pack,
    packed_key,
)
from fissura.classification.backbone_training import BackboneTrainer, BackboneTraining
from fissura.classification.distillation import Distillation, forget_teacher
from fissura.classification.image_changes import ImageChanges
from fissura.core.documents import read_json
from fissura.core.errors import DataError, ResourceError, SpecError, WeightsError
from fissura.core.files import remove_abandoned, sha256, write_json
from fissura.models.backbones import Backbone
from fissura.training.checkpoint import STATE, WEIGHTS, save_weights
from fissura.training.runtime import Runtime

__all__ = [
    "Backbone",
    "BackboneTraining",
    "Distillation",
    "ImageChanges",
    "TrainingImages",
    "read_backbone",
    "train_backbone",
    "train_packed",
]

DESCRIPTION, RESULT, HEAD = "training.json", "backbone.json", "head.safetensors"
HEAD_SHA = "head_sha256"
"""The key of `backbone.json` that trainings of versions without kept heads lack."""
OnEpoch = Callable[[dict[str, Any]], None]


def train_backbone(
    backbone: Backbone,
    *,
    training: BackboneTraining,
    images: TrainingImages,
    directory: Path,
    runtime: Runtime,
    teacher: Path | None = None,
    on_epoch: OnEpoch = lambda _: None,
) -> dict[str, Any]:
    """Trains `backbone` on `images` to its end into `directory`, resuming what is there.

    Args:
        backbone: with weights `distilled` it is distilled from `teacher`, with others trained on the labels.
        training: the optimiser's settings, epochs and augmentations.
        images: what it learns from. An image that cannot be read is left out and named in the result.
        directory: of this training alone, seen by all workers. A finished one is only read.
        runtime: where it runs.
        teacher: weights file of the teacher, of the kind that the distillation names; it reads images at the
            input size of `backbone`.
        on_epoch: called with each epoch's record, on every worker.

    Returns:
        The content of `backbone.json`: the backbone, the training, `data` (a digest), `classes`, the numbers
        of images, `unreadable`, `history` (a record an epoch), `seconds`, the `sha256` of the weights and the
        `head_sha256` of the head.

    Raises:
        DataError: nothing can be learnt from the images (a single class, say), or `directory` is another
            training's.
        WeightsError: the starting weights, or the teacher's, cannot be had or do not fit.
        Diverged: a loss is not a number.
        Interrupted: the runtime asked to stop; call again to resume.
    """
    images.check()
    description = describe(backbone, training=training, data=images.key, teacher=teacher)
    if (finished := finished_training(directory, description)) is not None:
        return finished
    if runtime.rank == 0:
        pack(images, size=backbone.input_size, directory=directory, threads=max(1, min(4, runtime.cpus - 1)))
    runtime.mean(0.0)  # waits until they are packed
    return train_packed(description, directory=directory, runtime=runtime, on_epoch=on_epoch)


def describe(
    backbone: Backbone, *, training: BackboneTraining, data: str, teacher: Path | None
) -> dict[str, Any]:
    """Everything that decides a training, as JSON types: sent to the workers, and kept to identify a
    directory's training.

    Raises:
        SpecError: a teacher without a distillation, or the other way round.
        WeightsError: the teacher's file is not there.
    """
    distils = backbone.weights == "distilled"
    if distils != (teacher is not None):
        raise SpecError(
            f"`backbone.weights: {backbone.weights}` and teacher {teacher}: a distillation has a teacher and"
            " no other training has; give the weights of a trained teacher, or set `backbone.weights` to"
            " trained"
        )
    if not distils:  # unused settings must not tell trainings apart
        training = training.model_copy(update={"distillation": Distillation()})
    start = training.start
    if start not in ("none", "imagenet"):
        start = str(Path(start).expanduser().resolve())
    weights: dict[str, str | None] = {"start": start, "teacher": None if teacher is None else str(teacher)}
    contents = {}
    for name, path in weights.items():
        if path in (None, "none", "imagenet"):
            contents[name] = path
        elif Path(str(path)).is_file():
            contents[name] = sha256(Path(str(path)))
        else:
            raise WeightsError(f"`{name}` weights `{path}`: there is no such file; train the {name} first")
    # `weights` names the file to start from by its content, not its path
    named = training.model_copy(update={"start": "none"}).named_by()
    return {
        "backbone": backbone.plain(),
        "training": named,
        "data": data,
        "weights": contents,
        "paths": weights,
    }


def train_packed(
    description: dict[str, Any], *, directory: Path, runtime: Runtime, on_epoch: OnEpoch = lambda _: None
) -> dict[str, Any]:
    """One worker's part in the training of a `describe` result, on the images packed in `directory`."""
    if (finished := finished_training(directory, description)) is not None:
        return finished
    backbone = Backbone.load(description["backbone"], source="backbone")
    training = BackboneTraining.load(description["training"], source="backbone training")
    images, paths = PackedImages.open(directory), description["paths"]
    if images.key != packed_key(description["data"], size=backbone.input_size):
        raise DataError(
            f"{directory / PIXELS}: other images than those asked for; remove it, then train again"
        )
    check_workers(runtime.world_size, training=training, images=len(images.train))
    if runtime.rank == 0:
        remove_abandoned(directory)
        write_json(directory / DESCRIPTION, description)
    # a state holds all weights: those to start from are not needed
    start = "none" if (directory / STATE).is_file() else paths["start"]
    teacher = Backbone(kind=training.distillation.teacher, input_size=backbone.input_size)
    trainer = BackboneTrainer(
        training,
        images=images,
        directory=directory,
        runtime=runtime,
        network=lambda: backbone.build(weights=start),
        teacher=None if paths["teacher"] is None else lambda: teacher.build(weights=paths["teacher"]),
    )
    while not trainer.finished:
        on_epoch(trainer.step())
    if runtime.rank == 0:
        save_weights(trainer.network.body, directory / WEIGHTS)
        save_weights(trainer.head, directory / HEAD)
        result = {
            **description,
            "classes": list(images.classes),
            "images": {"train": len(images.train), "validation": len(images.validation)},
            "unreadable": list(images.unreadable),
            "history": trainer.history,
            "seconds": trainer.progress.seconds,
            "workers": runtime.world_size,
            "sha256": sha256(directory / WEIGHTS),
            HEAD_SHA: sha256(directory / HEAD),
        }
        write_json(directory / RESULT, result)
    runtime.mean(0.0)  # waits until the result is written
    if runtime.rank == 0:
        _forget(directory)
    return read_backbone(directory)


def check_workers(workers: int, *, training: BackboneTraining, images: int) -> None:
    """Checks that the workers can share a batch of these training images.

    Raises:
        ResourceError: they cannot.
    """
    batch = min(training.batch_size, images)
    if batch < 2 * workers:
        raise ResourceError(
            f"--workers {workers}: batch normalisation needs two images a worker, and a batch has {batch};"
            f" ask for {batch // 2} workers or fewer, or set training.batch_size={2 * workers} with as many"
            " training images"
        )


def read_backbone(directory: Path) -> dict[str, Any]:
    """The `backbone.json` of a finished training; see `train_backbone`.

    Raises:
        DataError: there is no finished training, or one of its files is missing or damaged.
    """
    path = directory / RESULT
    if not path.is_file():
        raise DataError(f"{path}: no finished training of a backbone; train it first")
    plain = read_json(path, remedy="remove it, then train the backbone again")
    remedy = f"remove {RESULT} there, then train again"
    for name, key in ((WEIGHTS, "sha256"), (HEAD, HEAD_SHA)):
        file = directory / name
        if not file.is_file() and (name == WEIGHTS or key in plain):
            raise DataError(f"{file}: is missing; {remedy}")
        if key in plain and plain[key] != sha256(file):
            raise DataError(f"{file}: is damaged (its SHA-256 differs); {remedy}")
    return plain


def finished_training(directory: Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """The result in `directory` if the training of a `describe` result is finished there.

    Raises:
        DataError: another training's directory.
    """
    for name in (RESULT, DESCRIPTION):
        if not (directory / name).is_file():
            continue
        try:
            kept = read_json(directory / name, remedy="")
        except SpecError:
            kept = {}
        differing = [key for key, value in description.items() if key != "paths" and kept.get(key) != value]
        if differing:
            raise DataError(
                f"{directory}: holds the training of another backbone (another {', '.join(differing)});"
                " name another directory, or remove this one"
            )
        if name == RESULT:
            _forget(directory)
            return read_backbone(directory)
    return None


def _forget(directory: Path) -> None:
    """Removes what only an unfinished training needs."""
    forget_teacher(directory)
    for name in (STATE, PIXELS, LIST, DESCRIPTION):
        (directory / name).unlink(missing_ok=True)
