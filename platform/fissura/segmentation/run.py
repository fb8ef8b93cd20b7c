"""A finished training as a run directory; its manifest, written last, marks it as finished."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from fissura.data.dataset import Dataset
from fissura.records.manifest import DataFacts, Manifest
from fissura.records.run_files import MANIFEST, check_files, facts_of, read_manifest, write_manifest
from fissura.segmentation import micro_batches as memory
from fissura.segmentation.kept_maps import file_of
from fissura.segmentation.recipe import Recipe
from fissura.segmentation.trainer import Trainer
from fissura.training import tensorboard
from fissura.training.checkpoint import METRICS, RECIPE, WEIGHTS


def files_of(recipe: Recipe) -> tuple[str, ...]:
    """The files that a training of `recipe` may leave."""
    left = sorted({name for phase in recipe.phases for name in phase.loss.leaves})
    return (RECIPE, WEIGHTS, METRICS, *map(file_of, left), memory.FILE, tensorboard.FILE)


def close_run(
    trainer: Trainer, *, datasets: Sequence[Dataset], content: str, cpus: int, joules: float | None
) -> Manifest:
    """Writes the manifest of a finished training, once, by rank 0. `content` is the digest of the data's
    files."""
    if (trainer.run / MANIFEST).is_file():
        check_files(trainer.run, files_of(trainer.recipe))
        return read_manifest(trainer.run)
    now = datetime.now(UTC)
    # an untrained network's record is not an epoch's
    best, epochs = (trainer.progress.best_epoch, trainer.progress.epoch) if trainer.recipe.epochs else (0, 0)
    manifest = Manifest.collect(
        run_id=trainer.run.name,
        recipe=trainer.recipe.plain(),
        seed=trainer.recipe.seed,
        data=DataFacts(digest=content, datasets=tuple(dataset.plain() for dataset in datasets)),
        accelerator="cuda" if trainer.device.type == "cuda" else "cpu",
        cpus=cpus,
        started=now - timedelta(seconds=trainer.progress.seconds),
        finished=now,
        parameters=trainer.kept["parameters"],
        best_epoch=best,
        epochs=epochs,
        energy_joules=joules,
        accumulation=trainer.accumulation,
    )
    if trainer.rank != 0:
        return manifest
    files = files_of(trainer.recipe)
    trainer.write_patiently(
        lambda: write_manifest(
            trainer.run, manifest.model_copy(update={"files": facts_of(trainer.run, files)})
        )
    )
    return read_manifest(trainer.run)
