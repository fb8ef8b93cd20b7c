"""Training of a backbone over several workers of Ray Train."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from fissura.classification.backbone import (
    RESULT,
    Backbone,
    BackboneTraining,
    TrainingImages,
    check_workers,
    describe,
    finished_training,
    read_backbone,
    train_packed,
)
from fissura.classification.backbone_images import pack
from fissura.core.errors import Interrupted
from fissura.core.progress import Say, silent
from fissura.distributed.stopping import StopFile
from fissura.distributed.training.launch import reports_epochs, train_by_workers
from fissura.distributed.training.runtime import TrainRuntime
from fissura.training.runtime import usable_cpus


def train_backbone_on_workers(
    backbone: Backbone,
    *,
    training: BackboneTraining,
    images: TrainingImages,
    directory: Path,
    workers: int,
    teacher: Path | None = None,
    cpus_per_worker: int | None = None,
    address: str | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """`classification.backbone.train_backbone` with `workers` data-parallel workers, all of which see
    `directory` and the files of weights; the batch of a step is the training's, whatever their number.

    This process reads and packs the images; the workers get plain dicts. `train_by_workers` says what becomes
    of workers that die.

    Raises:
        ResourceError: the workers do not fit the cluster, or the batch is too small for them.
        Interrupted: a stop was requested; call again to resume.
        FissuraError: the training failed.
    """
    images.check()
    directory = directory.resolve()
    description = describe(
        backbone,
        training=training,
        data=images.key,
        teacher=None if teacher is None else teacher.resolve(),
    )
    if (finished := finished_training(directory, description)) is not None:
        return finished
    check_workers(workers, training=training, images=len(images.train))
    pack(images, size=backbone.input_size, directory=directory, threads=usable_cpus())
    train_by_workers(
        _train_worker,
        config=lambda cpus: {"asked": description, "directory": str(directory), "cpus": cpus},
        folder=directory,
        result=RESULT,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        address=address,
        say=say,
    )
    return read_backbone(directory)


def _train_worker(config: dict[str, Any]) -> None:
    """The training loop of one worker."""
    directory = Path(config["directory"])
    runtime = TrainRuntime(cpus=config["cpus"], stop=StopFile(directory))
    with suppress(Interrupted):
        train_packed(
            config["asked"],
            directory=directory,
            runtime=runtime,
            on_epoch=reports_epochs(directory, runtime),
        )
