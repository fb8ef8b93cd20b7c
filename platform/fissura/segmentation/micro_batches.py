"""Gradients of a batch that does not fit the memory, from parts of it that do.

A loss may read the whole batch at once (Dice over a batch, the normalised focal loss, a mean over valid
pixels), so the gradients of parts cannot just be summed. Instead the outputs of all parts are computed first,
without a graph; the loss of the whole batch gives its gradient with respect to them; and each part is
computed again and back-propagates its share (Gao et al., RepL4NLP 2021). So the step is the recipe's own, for
every loss, at the price of a second forward pass. Only batch normalisation differs: it takes its statistics
from a part, and updates its running ones once a part.

RUN/memory.json   {"micro_batch": images that one worker computes at a time}; absent: all of a step's
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fissura.core.documents import read_json
from fissura.core.errors import DataError
from fissura.core.files import write_json
from fissura.core.retry import must_stand
from fissura.losses.loss import BatchMaps
from fissura.segmentation.objective import Maps, PhaseObjective
from fissura.training.mixed_precision import MixedPrecision

FILE = "memory.json"


def micro_batch_of(run: Path, *, share: int) -> int:
    """The images that a worker computes at a time, of its `share` of a step's batch."""
    path = run / FILE
    if not path.is_file():
        return share
    remedy = "remove it, then resume: the size that fits is searched again"
    size = read_json(path, remedy=remedy).get("micro_batch")
    if not isinstance(size, int):
        raise DataError(f"{path}: holds no `micro_batch`; {remedy}")
    return max(1, min(share, size))


def halve(run: Path, *, share: int) -> bool:
    """Halves the micro-batch of later trainings of `run`; False where it is one image already."""
    must_stand(run)
    now = micro_batch_of(run, share=share)
    if now == 1:
        return False
    write_json(run / FILE, {"micro_batch": math.ceil(now / 2)})
    return True


def outputs_in_parts(
    objective: PhaseObjective, image: Tensor, *, size: int, autocast: AbstractContextManager[Any]
) -> tuple[Tensor, ...]:
    """The objective's outputs of a whole batch, computed `size` images at a time, without a graph."""
    with torch.no_grad(), autocast:
        parts = [objective.outputs(part) for part in _parts(image, size)]
    return parts[0] if len(parts) == 1 else tuple(torch.cat(outputs) for outputs in zip(*parts, strict=True))


def backward(
    model: nn.Module,
    objective: PhaseObjective,
    image: Tensor,
    target: Maps,
    valid: Maps,
    maps: BatchMaps,
    *,
    size: int,
    precision: MixedPrecision,
    on_logits: Callable[[Tensor], None] = lambda _: None,
) -> Tensor:
    """Adds the gradient of a batch's scaled loss to the parameters', at most `size` images at a time; returns
    the loss, and calls `on_logits` with the crack logits. `model` is the objective as the runtime prepared
    it; `maps` are the loss's own."""
    if len(image) > size:
        return backward_in_parts(
            objective, image, target, valid, maps,
            size=size, precision=precision, on_logits=on_logits,
        )  # fmt: skip
    with precision.autocast:
        loss, logits = model(image, target, valid, maps)
    on_logits(logits.detach())
    precision.backward(loss)
    detached: Tensor = loss.detach()
    return detached


def backward_in_parts(
    objective: PhaseObjective,
    image: Tensor,
    target: Maps,
    valid: Maps,
    maps: BatchMaps,
    *,
    size: int,
    precision: MixedPrecision,
    on_logits: Callable[[Tensor], None] = lambda _: None,
) -> Tensor:
    """`backward` for a batch of more than `size` images."""
    # the first pass must change neither running statistics nor dropout's random numbers
    buffers = [buffer.clone() for buffer in objective.buffers()]
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        outputs = outputs_in_parts(objective, image, size=size, autocast=precision.autocast)
    on_logits(outputs[0])
    for buffer, before in zip(objective.buffers(), buffers, strict=True):
        buffer.copy_(before)
    leaves = tuple(output.detach().requires_grad_() for output in outputs)
    loss = objective.loss_of(leaves, target, valid, maps)
    precision.backward(loss)
    gradients = [None if leaf.grad is None else _parts(leaf.grad, size) for leaf in leaves]
    for number, part in enumerate(_parts(image, size)):
        with precision.autocast:
            outputs = objective.outputs(part)
        reached = [
            (output, gradient[number])
            for output, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None
        ]
        torch.autograd.backward([output for output, _ in reached], [gradient for _, gradient in reached])
    return loss.detach()


def _parts(batch: Tensor, size: int) -> tuple[Tensor, ...]:
    """A batch in the fewest parts of at most `size`, as equal as possible: batch normalisation may fail on a
    part of one."""
    return batch.tensor_split(math.ceil(len(batch) / size))
