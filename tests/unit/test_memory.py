"""A batch in parts: the gradient of the whole, whatever the loss reads; and a training that runs out of memory."""

import json
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fissura.core.errors import ResourceError
from fissura.data.datasets import parse_dataset
from fissura.data.synthetic import SyntheticSpec, write
from fissura.engine.fit import fit
from fissura.engine.memory import backward_in_parts, halve, is_out_of_memory, micro_batch_of
from fissura.engine.objective import objective_of
from fissura.engine.run import read_manifest
from fissura.engine.runtime import LocalRuntime
from fissura.engine.trainer import Trainer
from fissura.losses import BCE, AmbiguityAware, AnyLoss, Clustering, Dice, DiceBCE, Focal
from fissura.models import UNet
from fissura.recipes import load_recipe
from fissura.studies.paths import override

LOSSES: tuple[AnyLoss, ...] = (
    BCE(),
    Dice(over="image"),
    Dice(over="batch"),
    DiceBCE(),
    Focal(),
    Focal(normaliser="constant"),
    AmbiguityAware(),
    AmbiguityAware(distance="kl"),
    Clustering(k=4, term="bound"),
    Clustering(k=4, term="exact"),
    Clustering(k=4, term="nnclr"),
)
SCALER = torch.amp.GradScaler("cpu", enabled=False)


def batch(images: int) -> tuple[Tensor, ...]:
    """Images with unequal numbers of cracks, valid and ambiguous pixels: where means of parts are no mean."""
    draw = torch.Generator().manual_seed(3)
    image = torch.rand(images, 3, 16, 16, generator=draw)
    share = torch.linspace(0.05, 0.6, images).view(-1, 1, 1, 1)
    target, hidden, unclear = (
        (torch.rand(images, 1, 16, 16, generator=draw) < share * scale).float() for scale in (1, 0.8, 0.4)
    )
    return image, target, 1 - hidden, unclear


def gradients(objective: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
    objective.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole(loss: AnyLoss, size: int) -> None:
    objective = objective_of(UNet(width=4, depth=2, normalisation="none").build(), loss).double().train()
    image, *maps = (part.double() for part in batch(5))
    whole, _ = objective(image, *maps)
    whole.backward()
    expected = gradients(objective)

    parts = backward_in_parts(
        objective, image, *maps, size=size, autocast=nullcontext(), scaler=SCALER
    )

    torch.testing.assert_close(parts, whole.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(objective), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_in_float32_it_is_so_within_rounding(loss: AnyLoss) -> None:
    objective = objective_of(UNet(width=4, depth=2, normalisation="none").build(), loss).train()
    image, *maps = batch(5)
    objective(image, *maps)[0].backward()
    expected = gradients(objective)
    backward_in_parts(objective, image, *maps, size=2, autocast=nullcontext(), scaler=SCALER)
    for part, whole in zip(gradients(objective), expected, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


def test_a_dropout_drops_the_same_values_in_both_passes() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        def forward(self, features: Tensor) -> Tensor:
            dropped = nn.functional.dropout(features, 0.5)
            self.seen.append(dropped.detach())
            return dropped

    network, dropping = UNet(width=4, depth=2, normalisation="none").build(), Dropping()
    network.to_logits = nn.Sequential(dropping, network.to_logits)
    objective = objective_of(network, BCE()).train()
    image, *maps = batch(4)
    backward_in_parts(objective, image, *maps, size=2, autocast=nullcontext(), scaler=SCALER)
    first, second = dropping.seen[:2], dropping.seen[2:]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first[0], first[1]), "each part draws its own"


def test_running_statistics_move_once_a_part_and_not_in_the_first_pass() -> None:
    objective = objective_of(UNet(width=4, depth=2).build(), BCE()).train()
    image, *maps = batch(4)
    backward_in_parts(objective, image, *maps, size=2, autocast=nullcontext(), scaler=SCALER)
    counted = {int(m.num_batches_tracked) for m in objective.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counted == {2}
