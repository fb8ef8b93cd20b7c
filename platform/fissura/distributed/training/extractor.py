"""One worker of a feature extraction: a Ray actor that loads a network and extracts chunk after chunk."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fissura.classification.feature_store import FeatureStore
from fissura.classification.features import ImageToRead, extract
from fissura.core.errors import UserError
from fissura.core.spec import Spec
from fissura.data.labelled import AnyLabelled, LabelledImage, read_keyed
from fissura.models.backbones import Backbone, FeatureNetwork
from fissura.training.runtime import LocalRuntime


class ExtractionContext(Spec):
    """What all workers of an extraction share. `directory` is the store's own; `backbone` names no weights,
    which `backbone_digest` does."""

    datasets: tuple[AnyLabelled, ...]
    backbone: Backbone
    backbone_digest: str
    directory: Path
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
        the image's `key` in the store, the index of its `dataset`, and the `image` itself. Returns the
        `reasons` why images have no features, by key, and the `problems` that end the work.
        """
        context = ExtractionContext.load(plain, source="extraction context")
        runtime = LocalRuntime(device="auto" if context.gpu else "cpu", cpus=context.cpus)
        try:
            extracted = extract(
                self._opened(context, tensors),
                [_to_read(context, item) for item in items],
                batch_size=context.batch_size,
                device=runtime.device,
            )
            if extracted.keys:
                context.store().write(extracted.keys, extracted.features)
        except UserError as error:
            return {"reasons": {}, "problems": list(error.problems)}
        return {"reasons": dict(extracted.skipped), "problems": []}

    def _opened(self, context: ExtractionContext, tensors: UInt8[np.ndarray, "bytes"]) -> FeatureNetwork:
        if self._network is None or self._digest != context.backbone_digest:
            from safetensors.torch import load

            self._network = context.backbone.build()
            self._network.load_state_dict(load(tensors.tobytes()))
            self._digest = context.backbone_digest
        return self._network


def _to_read(context: ExtractionContext, item: dict[str, Any]) -> ImageToRead:
    image = LabelledImage(**item["image"] | {"path": Path(item["image"]["path"])})
    read = partial(read_keyed, context.datasets[item["dataset"]], image, key=item["key"])
    # reasons are reported by key, since several images may share it
    return ImageToRead(item["key"], item["key"], read)
