"""A finished training as a run directory: its manifest, written last, is what says that it is finished."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fissura.core.errors import DataError
from fissura.core.files import write_json
from fissura.data.dataset import Dataset
from fissura.engine.trainer import Trainer
from fissura.results.manifest import DataFacts, Manifest

MANIFEST = "manifest.json"


def close_run(
    trainer: Trainer, *, datasets: Sequence[Dataset], content: str, cpus: int, joules: float | None
) -> Manifest:
    """Writes the manifest of a finished training, once, by rank 0. `content` is the digest of the data's
    files."""
    path = trainer.run / MANIFEST
    if path.is_file():
        return read_manifest(trainer.run)
    now = datetime.now(UTC)
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
        best_epoch=trainer.progress.best_epoch,
        epochs=trainer.progress.epoch,
        energy_joules=joules,
        accumulation=trainer.accumulation,
    )
    if trainer.rank == 0:
        trainer.keep(lambda: write_json(path, manifest.plain()))
    return manifest


def read_manifest(run: Path) -> Manifest:
    """The manifest of a run directory.

    Raises:
        DataError: the directory holds no finished run.
    """
    if not (run / MANIFEST).is_file():
        remedy = (
            "it is a study or a storage: name one of the folders below its runs/"
            if (run / "runs").is_dir()
            else "train it, or resume its study"
        )
        raise DataError(f"{run}: holds no finished run (no {MANIFEST}); {remedy}")
    return Manifest.load_file(run / MANIFEST)
