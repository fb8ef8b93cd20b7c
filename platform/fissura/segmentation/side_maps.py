"""The loss of a network's side maps, which it gives only in training."""

from collections.abc import Sequence
from functools import cache, partial, reduce

import torch
from jaxtyping import Float
from torch import Tensor

from fissura.losses import BCE, boundary_region
from fissura.losses.loss import BatchMaps, Criterion
from fissura.models import SideMap

Maps = Float[Tensor, "b 1 h w"]


def side_loss(
    criterion: Criterion,
    sides: Sequence[SideMap],
    logits: Sequence[Float[Tensor, "b 1 _ _"]],
    target: Maps,
    valid: Maps,
    maps: BatchMaps,
) -> Float[Tensor, ""]:
    """The weighted sum of the losses of the logits of `sides`, at least one, of a whole batch.

    Logits of the mask have the phase's `Criterion.side_loss`, those of the boundary, which is not a crack,
    the cross-entropy. For logits n times smaller than the mask, every n-th row and column of the mask, of the
    valid pixels and of the loss's own maps counts.
    """
    boundary_loss, reduced = BCE().build(), cache(partial(_reduced, target, valid, maps))
    boundary = cache(lambda n: boundary_region(reduced(n)[0] * reduced(n)[1]))
    costs = []
    for side, z in zip(sides, logits, strict=True):
        n = target.shape[-1] // z.shape[-1]
        mask, seen, own = reduced(n)
        if side.target == "mask":
            cost = criterion.side_loss(z, mask, seen, own)
        else:
            cost = boundary_loss(z, boundary(n), seen)
        costs.append(side.weight * cost)
    return reduce(torch.add, costs)


def _reduced(target: Maps, valid: Maps, maps: BatchMaps, n: int) -> tuple[Tensor, Tensor, BatchMaps]:
    """Every n-th row and column of all maps."""
    return (
        target[..., ::n, ::n],
        valid[..., ::n, ::n],
        {name: pixels[..., ::n, ::n] for name, pixels in maps.items()},
    )
