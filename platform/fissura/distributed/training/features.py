"""Features of labelled images, extracted by workers over the cluster's nodes, each image once a backbone and
content hash.

    DIRECTORY/<backbone digest>/    a `FeatureStore`; on shared storage, where there are several nodes

Workers write what they extract as separate parts: after a crash of the driver, only the rest is extracted.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from jaxtyping import Float32

from fissura.classification.feature_store import FeatureStore
from fissura.classification.features import SkippedImage, backbone_digest
from fissura.core.errors import DataError
from fissura.core.progress import Say
from fissura.core.text import count
from fissura.data.labelled import KeyedImage, LabelledDataset
from fissura.distributed.pool import Pool
from fissura.distributed.preflight import Slots
from fissura.distributed.stopping import StopFile
from fissura.distributed.training.extractor import ExtractionContext, Extractor
from fissura.models.backbones import Backbone, FeatureNetwork
from fissura.training.checkpoint import contiguous

NAMED_PROBLEMS = 5


@dataclass(frozen=True)
class Extracted:
    """The images that have features in `store`, in the order given, and those that have none, named
    `SOURCE/NAME`."""

    store: FeatureStore
    images: tuple[KeyedImage, ...]
    skipped: tuple[SkippedImage, ...]

    def features(self) -> Float32[np.ndarray, "n d"]:
        """A row an image."""
        return self.store.read([each.key for each in self.images])


class ExtractionWorkers(Pool):
    """Workers for one extraction after the other, over the cluster that this process is connected to.

    At most `slots.concurrent` workers, each with the slot's CPUs and GPUs, which they hold until the block
    ends.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        actor = ray.remote(num_cpus=slots.cpus, num_gpus=slots.gpus)(Extractor)
        super().__init__(actor.remote, size=slots.concurrent)


def features_of(
    images: Sequence[KeyedImage],
    *,
    backbone: Backbone,
    weights: Path | None,
    seed: int,
    directory: Path,
    workers: ExtractionWorkers,
    say: Say,
    batch_size: int = 32,
    stop: StopFile | None = None,
) -> Extracted:
    """The features of the images; those that `directory` lacks are extracted.

    `weights` replaces the backbone's own, and `seed` draws random ones. An unreadable image is named and
    skipped, and retried by the next call.

    Raises:
        WeightsError: the backbone's weights cannot be had.
        DataError: no image has features, or the directory cannot be written.
        Interrupted: a stop was requested; call again to resume.
        FissuraError: the workers die repeatedly.
    """
    network = _built(backbone, weights=weights, seed=seed)
    digest = backbone_digest(network)
    context = ExtractionContext(
        datasets=tuple(dict.fromkeys(each.dataset for each in images)),
        backbone=backbone.model_copy(update={"weights": "none"}),
        backbone_digest=digest,
        directory=(directory / digest).absolute(),
        batch_size=batch_size,
        cpus=workers.slots.cpus,
        gpu=workers.slots.gpus > 0,
    )
    store = context.store()
    keys = [each.key for each in images]
    missing = set(store.missing(keys))
    title = f"features of {backbone.kind}"
    say(f"{title}: {count(len(set(keys)), 'image')}, {len(missing)} to extract")
    for part in store.skipped:
        say(f"{part.path}: passed over, {part.reason}")
    reasons: dict[str, str] = {}
    if missing:
        reasons = workers.run(
            _items(images, missing, context=context),
            arguments=(context.plain(), _tensors(network)),
            least=batch_size,
            say=lambda text: say(f"{title}: {text}"),
            stop=stop,
        )
        store.compact()
        missing = set(store.missing(keys))
    skipped = tuple(
        SkippedImage(f"{each.source}/{each.image.name}", reasons.get(each.key, "it was not extracted"))
        for each in images
        if each.key in missing
    )
    kept = tuple(each for each in images if each.key not in missing)
    if not kept:
        named = [f"{image.name}: {image.reason}" for image in skipped[:NAMED_PROBLEMS]]
        raise DataError(f"{title}: none of {len(images)} images has features", *named)
    for image in skipped:
        say(f"{image.name}: skipped, {image.reason}")
    return Extracted(store, kept, skipped)


def _built(backbone: Backbone, *, weights: Path | None, seed: int) -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return backbone.build(weights)


def _tensors(network: FeatureNetwork) -> ray.ObjectRef:
    """The network's tensors in Ray's object store, where the workers of a node share them."""
    from safetensors.torch import save

    return ray.put(np.frombuffer(save(contiguous(network.state_dict())), np.uint8))


def _items(
    images: Sequence[KeyedImage], missing: set[str], *, context: ExtractionContext
) -> list[dict[str, Any]]:
    """What workers are told of each missing image, once a key."""
    place: dict[LabelledDataset, int] = {dataset: index for index, dataset in enumerate(context.datasets)}
    items = {
        each.key: {
            "key": each.key,
            "dataset": place[each.dataset],
            "image": asdict(each.image) | {"path": str(each.image.path)},
        }
        for each in images
        if each.key in missing
    }
    return list(items.values())
