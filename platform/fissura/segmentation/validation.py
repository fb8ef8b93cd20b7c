"""Validates one epoch: loss and scores over the validation images at the working size."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from fissura.data.cache import PreparedData
from fissura.data.epochs import collate, prepared_patch
from fissura.metrics import Overlap
from fissura.metrics.counts import pool
from fissura.metrics.scores import best_threshold, level_of
from fissura.segmentation.micro_batches import outputs_in_parts
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.opening import opened
from fissura.segmentation.predict import to_bytes
from fissura.segmentation.recipe import Given, Recipe


@torch.inference_mode()
def validate(
    objective: PhaseObjective,
    *,
    data: PreparedData,
    recipe: Recipe,
    device: torch.device,
    micro_batch: int | None = None,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """`val/loss`: mean over batches; `val/precision|recall|f1`: pooled, under the recipe's first protocol, at
    `val/threshold`, which is the recipe's, or else that of the best pooled F1; `val/dice|iou`: pooled, at
    0.5; `latency_ms`: forward pass and loss, milliseconds an image.

    If the loss is not finite, the result holds nothing else. An image is read in one pass whatever the
    recipe's inference: a search needs only the order of its trials. `micro_batch` images go through the
    network at a time, by default a batch. Calls `on_image` with the number of scored images and their total.
    """
    objective.eval()
    pipeline, protocol = recipe.data, recipe.protocols[0]
    indices = data.indices("val")
    losses, counts, overlaps, forward = [], [], [], 0.0
    for start in range(0, len(indices), pipeline.batch_size):
        part = indices[start : start + pipeline.batch_size]
        patches = [prepared_patch(data, index) for index in part]
        batch = collate(patches, stride=objective.model.stride)
        image, target, valid = (tensor.to(device) for tensor in (batch.image, batch.target, batch.valid))
        begin = time.perf_counter()
        outputs = outputs_in_parts(
            objective, pipeline.normalise(image), size=micro_batch or len(part), autocast=nullcontext()
        )
        loss, logits = objective.loss_of(outputs, target.float(), valid.float(), {}), outputs[0]
        losses.append(float(loss))
        forward += time.perf_counter() - begin
        if not math.isfinite(losses[-1]):
            return {"val/loss": losses[-1]}
        maps = logits.sigmoid()[:, 0].cpu().numpy()
        for patch, padded in zip(patches, maps, strict=True):
            height, width = patch.mask.shape
            probability = to_bytes(opened(padded[:height, :width], recipe.smallest_crack))
            counts.append(protocol.count(probability, patch.mask, patch.valid))
            overlaps.append(Overlap().count(probability, patch.mask, patch.valid))
        on_image(len(counts), len(indices))
    pooled = pool(counts)
    given = recipe.threshold
    threshold = given.value if isinstance(given, Given) else best_threshold(pooled)
    scores = protocol.score(pooled, level_of(threshold))
    overlap = Overlap().score(pool(overlaps), level_of(0.5))
    return {
        "val/loss": float(np.mean(losses)),
        "val/precision": scores.precision,
        "val/recall": scores.recall,
        "val/f1": scores.f1,
        "val/threshold": threshold,
        "val/dice": overlap.dice,
        "val/iou": overlap.iou,
        "latency_ms": 1000 * forward / len(indices),
    }
