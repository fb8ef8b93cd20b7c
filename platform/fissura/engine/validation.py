"""The judgement of one epoch: loss and scores over the validation images at the working size."""

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from fissura.data.cache import PreparedData
from fissura.data.pipeline import Pipeline, collate, prepared_patch
from fissura.metrics import AnyProtocol, Overlap
from fissura.metrics.counts import pool
from fissura.metrics.scores import best_threshold, level_of
from fissura.models import Segmenter


@torch.inference_mode()
def validate(
    model: Segmenter,
    *,
    data: PreparedData,
    pipeline: Pipeline,
    loss: nn.Module,
    protocol: AnyProtocol,
    device: torch.device,
) -> dict[str, Any]:
    """`val/loss`: mean over batches; `val/precision|recall|f1`: pooled, under `protocol`, at the threshold
    of the best pooled F1, which is `val/threshold`; `val/dice|iou`: pooled, at 0.5; `latency_ms`: forward
    pass, milliseconds an image."""
    model.eval()
    indices = data.indices("val")
    losses, counts, overlaps, forward = [], [], [], 0.0
    for start in range(0, len(indices), pipeline.batch_size):
        part = indices[start : start + pipeline.batch_size]
        patches = [prepared_patch(data, index) for index in part]
        batch = collate(patches, stride=model.stride)
        image, target, valid = (tensor.to(device) for tensor in (batch.image, batch.target, batch.valid))
        begin = time.perf_counter()
        logits = model(pipeline.normalise(image)).float()
        losses.append(float(loss(logits, target.float(), valid.float())))
        forward += time.perf_counter() - begin
        maps = (logits.sigmoid()[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
        for (_, mask, valid_pixels), wide in zip(patches, maps, strict=True):
            probability = np.ascontiguousarray(wide[: mask.shape[0], : mask.shape[1]])
            counts.append(protocol.count(probability, mask, valid_pixels))
            overlaps.append(Overlap().count(probability, mask, valid_pixels))
    pooled = pool(counts)
    threshold = best_threshold(pooled)
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
