"""A whole training by one worker: data, epochs, manifest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fissura.core.progress import OnStep
from fissura.data.content import content_digest
from fissura.data.dataset import Dataset
from fissura.data.trainable import prepare_training
from fissura.records.energy import energy_meter
from fissura.records.manifest import Manifest
from fissura.segmentation.recipe import Recipe
from fissura.segmentation.resumable import Training
from fissura.segmentation.run import close_run
from fissura.training.runtime import Runtime

OnEpoch = Callable[[dict[str, Any]], None]


def fit(
    recipe: Recipe,
    *,
    datasets: Sequence[Dataset],
    run: Path,
    cache: Path,
    content: str | None = None,
    runtime: Runtime,
    on_epoch: OnEpoch = lambda _: None,
    on_step: OnStep = lambda *_: None,
) -> Manifest:
    """Trains `recipe` to its end into the directory `run`, resuming what is there. `content` is the digest of
    the data's files; by default they are hashed now. `on_step` is called with the progress in an epoch.

    Raises:
        DataError: bad images, or none with a crack to train or validate on.
        Diverged: a loss is not a number.
        ResourceError: not even one image at a time fits the memory.
        Interrupted: the runtime asked to stop; call again to resume.
    """
    content = content or content_digest(datasets, directory=cache)
    data = prepare_training(datasets, resize=recipe.data.resize, directory=cache, content=content)
    meter = energy_meter()
    training = Training(recipe, data=data, run=run, runtime=runtime, on_step=on_step)
    from_start = training.trainer.progress.seconds == 0
    cpus, manifest = runtime.cpus * runtime.world_size, None
    while manifest is None:
        done = training.trainer.finished
        manifest = advance(
            training,
            datasets=datasets,
            content=content,
            cpus=cpus,
            joules=lambda: meter.joules() if meter is not None and from_start else None,
        )
        if not done:
            on_epoch(training.trainer.history[-1])
        if meter is not None:
            meter.joules()  # a counter that starts again from 0 must be read before it does so twice
    return manifest


def advance(
    training: Training,
    *,
    datasets: Sequence[Dataset],
    content: str,
    cpus: int,
    joules: Callable[[], float | None] = lambda: None,
) -> Manifest | None:
    """Trains one epoch, unless all are done; after the last one closes the run and returns its manifest.
    Every loop over epochs calls it: here, in a trial, in a trial of several workers."""
    if not training.trainer.finished:
        training.step()
    if not training.trainer.finished:
        return None
    return close_run(training.trainer, datasets=datasets, content=content, cpus=cpus, joules=joules())
