"""Training of a recipe over several workers of Ray Train."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fissura.core.errors import Interrupted, ResourceError
from fissura.core.progress import Say, silent
from fissura.data.dataset import Dataset
from fissura.distributed.search.trial import TrialContext
from fissura.distributed.stopping import StopFile
from fissura.distributed.training.launch import reports_epochs, train_by_workers
from fissura.distributed.training.runtime import TrainRuntime
from fissura.records.manifest import Manifest
from fissura.records.run_files import MANIFEST, read_manifest
from fissura.segmentation.fit import fit
from fissura.segmentation.recipe import Recipe


def train_on_workers(
    recipe: Recipe,
    *,
    datasets: Sequence[Dataset],
    content: str,
    run: Path,
    cache: Path,
    workers: int,
    cpus_per_worker: int | None = None,
    address: str | None = None,
    say: Say = silent,
) -> Manifest:
    """Trains `recipe` with `workers` data-parallel workers; the batch of a step is the recipe's, whatever
    their number. `train_by_workers` says what becomes of workers that die. `train.log` in the run records
    each epoch and its workers.

    Raises:
        ResourceError: the workers do not fit the cluster, or the batch is too small for them.
        Interrupted: a stop was requested; call again to resume.
        FissuraError: the training failed.
    """
    batch = recipe.data.batch_size
    if batch < workers:
        raise ResourceError(
            f"--workers {workers}: a step's batch of {batch} is shared by the workers; ask for {batch} or"
            f" fewer, or set data.batch_size={workers}"
        )

    def config(cpus: int) -> dict[str, Any]:
        context = TrialContext(study=run, datasets=tuple(datasets), content=content, cache=cache, cpus=cpus)
        return {"recipe": recipe.plain(), "context": context.plain()}

    train_by_workers(
        _train_worker,
        config=config,
        folder=run,
        result=MANIFEST,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        address=address,
        say=say,
    )
    return read_manifest(run)


def _train_worker(config: dict[str, Any]) -> None:
    """The training loop of one worker."""
    context = TrialContext.load(config["context"], source="worker context")
    runtime = TrainRuntime(cpus=context.cpus, stop=StopFile(context.study))
    with suppress(Interrupted):
        fit(
            Recipe.load(config["recipe"], source="worker recipe"),
            datasets=context.datasets,
            run=context.study,
            cache=context.cache,
            runtime=runtime,
            on_epoch=reports_epochs(context.study, runtime),
        )
