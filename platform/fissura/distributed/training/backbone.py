"""Training of a backbone over several workers: Ray Train starts them."""

import os
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

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
from fissura.core.errors import FissuraError, Interrupted, ResourceError
from fissura.distributed.cluster import connected
from fissura.distributed.stopping import StopFile, stops_on_signals
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
) -> dict[str, Any]:
    """`classification.backbone.train_backbone` with `workers` data-parallel workers, all of which see
    `directory` and the files of weights; the batch of a step is the training's, whatever their number.

    This process reads and packs the images; the workers get plain dicts. A worker that dies is replaced, and
    all go on from the last epoch.

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
    # Ray Train polls for reports at this interval, and an epoch can be shorter than its default
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    pack(images, size=backbone.input_size, directory=directory, threads=usable_cpus())
    stop = StopFile(directory)
    stop.clear()
    with connected(address) as resources, stops_on_signals(stop):
        gpu = resources.gpus > 0
        cpus = cpus_per_worker or max(1, resources.cpus // workers)
        have, need = (resources.gpus, workers) if gpu else (resources.cpus, workers * cpus)
        if need > have:
            raise ResourceError(
                f"--workers {workers}: needs {need} {'GPUs' if gpu else 'CPUs'}, the cluster has {have}; ask"
                " for fewer workers"
            )
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={"asked": description, "directory": str(directory), "cpus": cpus},
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": cpus} | ({"GPU": 1} if gpu else {}),
            ),
            run_config=RunConfig(
                name="ray-train", storage_path=str(directory), failure_config=FailureConfig(max_failures=2)
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            if stop.requested():
                raise Interrupted(f"{directory}: stopped on request; do the same again to go on") from None
            raise FissuraError(f"{directory}: the training failed: {error}") from error
    if not (directory / RESULT).is_file():
        raise Interrupted(f"{directory}: stopped on request; do the same again to go on")
    return read_backbone(directory)


def _train_worker(config: dict[str, Any]) -> None:
    """The training loop of one worker."""
    directory = Path(config["directory"])
    try:
        train_packed(
            config["asked"],
            directory=directory,
            runtime=TrainRuntime(cpus=config["cpus"], stop=StopFile(directory)),
            on_epoch=lambda record: ray.train.report(
                {name: value for name, value in record.items() if isinstance(value, int | float)}
            ),
        )
    except Interrupted:
        return
