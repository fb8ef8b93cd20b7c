"""One worker of a feature extraction: a Ray actor that loads a network and extracts chunk after chunk."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from fissura.classification.feature_store import FeatureStore
from fissura.classification.features import ImageToRead, extract
from fissura.core.errors import UserError
from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.data.interference import Interference, disturb
from fissura.data.labelled import AnyLabelled, LabelledImage, read_keyed
from fissura.models.backbones import Backbone, FeatureNetwork
from fissura.training.runtime import LocalRuntime


class Disturbance(Spec):
    """An interference over every image, drawn from `seed` and the image's content."""

    kind: Interference
    seed: int = Field(0, ge=0)

    def key(self, image: str) -> str:
        """The key of the disturbed image, whose undisturbed one's is `image`: 64 hex digits."""
        return hashlib.sha256(f"{image}:{self.kind}:{self.seed}".encode()).hexdigest()

    def over(self, pixels: UInt8[np.ndarray, "h w 3"], *, image: str) -> UInt8[np.ndarray, "h w 3"]:
        """The disturbed image."""
        return disturb(pixels, kind=self.kind, seed=derive(self.seed, image))


class ExtractionContext(Spec):
    """What all workers of an extraction share. `directory` is the store's own; `backbone` names no weights,
    which `backbone_digest` does."""

    datasets: tuple[AnyLabelled, ...]
    backbone: Backbone
    backbone_digest: str
    directory: Path
    disturbance: Disturbance | None
    batch_size: int
    cpus: int
    gpu: bool

    def store(self) -> FeatureStore:
        """Where the features go."""
        return FeatureStore(
            self.directory, backbone_digest=self.backbone_digest, dimensions=self.backbone.dimensions
        )


class Extractor:
    """Keeps the network that it loaded last."""

    def __init__(self) -> None:
        self._digest = ""
        self._network: FeatureNetwork | None = None

    def work(
        self, plain: dict[str, Any], tensors: UInt8[np.ndarray, "bytes"], items: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Writes the features of the images as a part of the store.

        `plain` is an `ExtractionContext`, and `tensors` the bytes of its network's safetensors. An item holds
        the image's `key` in the store and that of its `content`, the index of its `dataset`, and the `image`
        itself. Gives the `reasons` why images have no features, by key, and the `problems` that end the work.
        """
        context = ExtractionContext.load(plain, source="extraction context")
        runtime = LocalRuntime(device="auto" if context.gpu else "cpu", cpus=context.cpus)
        try:
            found = extract(
                self._opened(context, tensors),
                [_to_read(context, item) for item in items],
                batch_size=context.batch_size,
                device=runtime.device,
            )
            if found.keys:
                context.store().write(found.keys, found.features)
        except UserError as error:
            return {"reasons": {}, "problems": list(error.problems)}
        return {"reasons": dict(found.skipped), "problems": []}

    def _opened(self, context: ExtractionContext, tensors: UInt8[np.ndarray, "bytes"]) -> FeatureNetwork:
        if self._network is None or self._digest != context.backbone_digest:
            from safetensors.torch import load

            self._network = context.backbone.build()
            self._network.load_state_dict(load(tensors.tobytes()))
            self._digest = context.backbone_digest
        return self._network


def _to_read(context: ExtractionContext, item: dict[str, Any]) -> ImageToRead:
    image = LabelledImage(**item["image"] | {"path": Path(item["image"]["path"])})
    dataset, disturbance = context.datasets[item["dataset"]], context.disturbance

    def read() -> UInt8[np.ndarray, "h w 3"]:
        pixels = read_keyed(dataset, image, key=item["content"])
        return pixels if disturbance is None else disturbance.over(pixels, image=item["content"])

    # what has no features is told by its key, since several images may share it
    return ImageToRead(item["key"], item["key"], read)
