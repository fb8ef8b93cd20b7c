"""One classifier trained from images to a run directory: backbone, features, fit."""

from collections.abc import Sequence
from pathlib import Path

from fissura.classification.recipe import ClassifierRecipe
from fissura.core.progress import Say
from fissura.data.labelled import LabelledDataset, check_classes
from fissura.distributed.cluster import connected
from fissura.distributed.preflight import Slots
from fissura.distributed.search.trial_inputs import Material
from fissura.distributed.training.fit_classifier import fit_run
from fissura.models import check_weights
from fissura.records.manifest import Manifest
from fissura.records.run_files import MANIFEST, read_manifest


def train_classifier(
    recipe: ClassifierRecipe,
    *,
    datasets: Sequence[LabelledDataset],
    content: str,
    storage: Path,
    cache: Path | None,
    workers: int,
    cpus_per_worker: int | None,
    address: str | None,
    say: Say,
) -> tuple[Path, Manifest]:
    """Trains `recipe` into `storage/runs`; a backbone that is learnt is learnt by `workers` workers, and its
    features are extracted on every node.

    Raises:
        UserError: images, labels or hardware that it cannot be trained with.
    """
    run = storage / "runs" / recipe.run_id(content)
    if (run / MANIFEST).is_file():
        return run, read_manifest(run)
    check_classes(datasets, directory=cache)
    check_weights(*recipe.weights_wanted)
    with connected(address) as resources:
        cpus = cpus_per_worker or max(1, resources.node_cpus // workers)
        material = Material(
            datasets,
            storage=storage,
            cache=cache,
            content=content,
            workers=workers,
            slots=Slots(max(1, resources.cpus // cpus), cpus, 1.0 if resources.gpus else 0.0),
            address=address,
            say=say,
        )
        return run, fit_run(run, recipe, material, scores={}, cpus=cpus)
