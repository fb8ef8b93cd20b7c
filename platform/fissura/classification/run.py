"""A finished classifier as a run directory, and the predictor that is built from it alone.

RUN/recipe.json  RUN/weights.safetensors (the backbone)  RUN/classifier.npz  RUN/metrics.json
RUN/manifest.json, written last  RUN/classes.parquet, once it is evaluated
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from fissura.classical.compact import Compact, CompactError
from fissura.classification.recipe import ClassifierRecipe
from fissura.core.errors import DataError
from fissura.core.files import replacing, write_json
from fissura.core.spec import Spec
from fissura.models.backbones import FeatureNetwork
from fissura.records.manifest import DataFacts, Manifest
from fissura.records.run_files import (
    MANIFEST,
    RESTORE,
    check_files,
    facts_of,
    no_numbers,
    read_manifest,
    write_manifest,
)
from fissura.training.checkpoint import METRICS, RECIPE, WEIGHTS, load_weights, save_weights

CLASSIFIER = "classifier.npz"


def close_classifier_run(
    run: Path,
    *,
    recipe: ClassifierRecipe,
    network: FeatureNetwork,
    classifier: Compact,
    datasets: Sequence[Spec],
    content: str,
    metrics: dict[str, Any],
    seconds: float,
    cpus: int,
) -> Manifest:
    """Writes a fitted classifier with its backbone, the manifest last. `content` is the digest of the images
    and labels, `seconds` the time of the fit."""
    if (run / MANIFEST).is_file():
        return read_manifest(run)
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / RECIPE, recipe.plain())
    save_weights(network.body, run / WEIGHTS)
    with replacing(run / CLASSIFIER) as scratch:
        classifier.save(scratch)
    write_json(run / METRICS, metrics)
    now = datetime.now(UTC)
    manifest = Manifest.collect(
        run_id=run.name,
        recipe=recipe.plain(),
        seed=recipe.seed,
        data=DataFacts(digest=content, datasets=tuple(dataset.plain() for dataset in datasets)),
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        cpus=cpus,
        started=now - timedelta(seconds=seconds),
        finished=now,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        best_epoch=0,
        epochs=0,
        energy_joules=None,
        files=facts_of(run, (RECIPE, WEIGHTS, CLASSIFIER, METRICS)),
    )
    write_manifest(run, manifest)
    return manifest


@dataclass(frozen=True)
class Classifier:
    """A trained classifier of images, as `run` holds it."""

    recipe: ClassifierRecipe
    network: FeatureNetwork
    compact: Compact
    device: torch.device
    run: Path

    @classmethod
    def open(cls, run: Path, *, device: torch.device) -> Self:
        """The classifier of a run directory.

        Raises:
            DataError: the directory holds no finished classifier, or files of another one.
        """
        read_manifest(run)
        check_files(run, (RECIPE, WEIGHTS, CLASSIFIER))
        recipe = ClassifierRecipe.load_file(run / RECIPE, remedy=RESTORE)
        network = recipe.backbone.build(weights="none")
        load_weights(network.body, run / WEIGHTS)
        try:
            compact = Compact.load(run / CLASSIFIER)
        except (CompactError, OSError) as error:
            raise DataError(f"{run / CLASSIFIER}: {error}; train the run again") from None
        if compact.width != network.dimensions:
            raise DataError(
                f"{run / CLASSIFIER}: reads {compact.width} features, and the backbone of this run gives"
                f" {network.dimensions}; train the run again"
            )
        return cls(recipe, network.to(device).eval(), compact, device, run)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]]
    ) -> tuple[Int64[np.ndarray, " n"], Float[np.ndarray, "n pair"]]:
        """The class of each RGB image, all of one size, and its decision values, one a pair of classes.

        Raises:
            ModelError: the backbone's features or the decision values are not finite.
        """
        pixels = torch.from_numpy(np.stack(images)).to(self.device)
        features = self.network(pixels).float().cpu().numpy()
        try:
            return self.compact.predict(features), self.compact.decision(features)
        except CompactError:  # not the features' width, which `open` checked
            raise no_numbers(self.run) from None
