"""A batch in parts has the gradient of the whole, whatever the loss reads; trainings run out of memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fissura.data.datasets import parse_dataset
from fissura.data.synthetic import SyntheticSpec, write
from fissura.losses import (
    BCE,
    AmbiguityAware,
    AnyLoss,
    BalancedBCE,
    Boundary,
    Clustering,
    Dice,
    DiceBCE,
    Focal,
    OhemBCE,
    RobustT,
    SkeletonRecall,
    SoftClDice,
    Term,
    WeightedBCE,
    WeightedSum,
)
from fissura.losses.clustering import AMBIGUOUS
from fissura.models import UNet
from fissura.recipes import load_recipe
from fissura.segmentation.fit import fit
from fissura.segmentation.micro_batches import backward_in_parts, halve, micro_batch_of
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import Recipe
from fissura.spaces.fields import override
from fissura.training.mixed_precision import MixedPrecision
from fissura.training.runtime import LocalRuntime

LOSSES: tuple[AnyLoss, ...] = (
    BCE(),
    Dice(over="image"),
    Dice(over="batch"),
    DiceBCE(),
    Focal(),
    Focal(normaliser="constant"),
    WeightedBCE(),
    BalancedBCE(),
    OhemBCE(least_kept=500),
    RobustT(),
    SoftClDice(iterations=2),
    SkeletonRecall(),
    Boundary(),
    AmbiguityAware(),
    AmbiguityAware(distance="kl"),
    Clustering(k=4, term="bound"),
    Clustering(k=4, term="exact"),
    Clustering(k=4, term="nnclr"),
    WeightedSum(
        terms=(
            Term(name="dice", weight=0.3, loss=Dice()),
            Term(name="doubt", weight=0.5, loss=AmbiguityAware()),
            Term(name="clusters", loss=Clustering(k=4, term="nnclr")),
        )
    ),
)
FLOAT32 = MixedPrecision("float32", torch.device("cpu"))


def batch(
    images: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Images with unequal numbers of cracks, valid and ambiguous pixels: where means of parts are no mean."""
    draw = torch.Generator().manual_seed(3)
    image = torch.rand(images, 3, 16, 16, generator=draw)
    share = torch.linspace(0.05, 0.6, images).view(-1, 1, 1, 1)
    target, hidden, unclear = (
        (torch.rand(images, 1, 16, 16, generator=draw) < share * scale).float() for scale in (1, 0.8, 0.4)
    )
    return (
        image.to(dtype),
        target.to(dtype),
        (1 - hidden).to(dtype),
        {name: unclear.to(dtype) for name in (AMBIGUOUS, f"clusters.{AMBIGUOUS}")},
    )


def gradients(objective: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
    objective.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole(loss: AnyLoss, size: int) -> None:
    objective = PhaseObjective(UNet(width=4, depth=2, normalisation="none").build(), loss).double().train()
    image, *maps = batch(5, torch.float64)
    whole, _ = objective(image, *maps)
    whole.backward()
    expected = gradients(objective)

    parts = backward_in_parts(objective, image, *maps, size=size, precision=FLOAT32)

    torch.testing.assert_close(parts, whole.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(objective), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_in_float32_it_is_so_within_rounding(loss: AnyLoss) -> None:
    objective = PhaseObjective(UNet(width=4, depth=2, normalisation="none").build(), loss).train()
    image, *maps = batch(5)
    objective(image, *maps)[0].backward()
    expected = gradients(objective)
    backward_in_parts(objective, image, *maps, size=2, precision=FLOAT32)
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
    objective = PhaseObjective(network, BCE()).train()
    image, *maps = batch(4)
    backward_in_parts(objective, image, *maps, size=2, precision=FLOAT32)
    first, second = dropping.seen[:2], dropping.seen[2:]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first[0], first[1]), "each part draws its own"


def test_running_statistics_move_once_a_part_and_not_in_the_first_pass() -> None:
    objective = PhaseObjective(UNet(width=4, depth=2).build(), BCE()).train()
    image, *maps = batch(4)
    backward_in_parts(objective, image, *maps, size=2, precision=FLOAT32)
    counted = {int(m.num_batches_tracked) for m in objective.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counted == {2}


def test_the_images_at_a_time_are_halved_down_to_one_and_stay_so(tmp_path: Path) -> None:
    sizes = [micro_batch_of(tmp_path, share=12)]
    while halve(tmp_path, share=12):
        sizes.append(micro_batch_of(tmp_path, share=12))
    assert sizes == [12, 6, 3, 2, 1]


LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from fissura.core.errors import FissuraError
from fissura.data.datasets import parse_dataset
from fissura.training.allocator import trim_memory
from fissura.segmentation.fit import fit
from fissura.segmentation.recipe import Recipe
from fissura.training.runtime import LocalRuntime

folder, images, megabytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
recipe = Recipe.load_file(folder / "recipe.json")
runtime = LocalRuntime(device="cpu", cpus=1)
# the libraries of a training are loaded before the limit is drawn; small images leave little memory behind
crop = recipe.data.crop.model_copy(update={"size": 32})
small = recipe.model_copy(update={"data": recipe.data.model_copy(update={"batch_size": 1, "crop": crop})})
data = [parse_dataset(f"synthetic:{images}")]
fit(small, datasets=data, run=folder / "small", cache=folder / "cache", runtime=runtime)
trim_memory()
# writable memory alone: what glibc reserves for each thread's heap is no memory yet, and would hide the limit
size = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (size + megabytes * 2**20, resource.RLIM_INFINITY))
try:
    manifest = fit(recipe, datasets=data, run=folder / "run", cache=folder / "cache", runtime=runtime)
except FissuraError as error:
    print(json.dumps({"failed": str(error)}))
else:
    print(json.dumps({"accumulation": manifest.accumulation, "epochs": manifest.epochs}))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "images"
    write(SyntheticSpec(train=8, val=1, test=1, height=256, width=256, crack_width=(1.5, 4.0)), folder)
    return folder


def train_within(folder: Path, images: Path, *, megabytes: int) -> dict[str, Any]:
    """What a training with batches of 8 comes to that may take so much memory beside its libraries."""
    settings = {
        "model.width": 16, "model.depth": 2, "model.normalisation": "none", "data.crop.size": 256,
        "data.crop.per_image": 1, "data.batch_size": 8, "epochs": 1,
    }  # fmt: skip
    recipe = override(load_recipe("small_unet"), settings)
    (folder / "recipe.json").write_text(json.dumps(recipe.plain()))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder), str(images), str(megabytes)],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_goes_on_in_parts_to_the_same_weights(
    tmp_path: Path, images: Path, measured: Callable[..., None]
) -> None:
    result = train_within(tmp_path, images, megabytes=200)

    assert "failed" not in result, result
    assert 2 <= result["accumulation"] <= 8, "a batch of 8 takes between 300 and 500 MB"
    measured("out of memory", parts=result["accumulation"], of_batch=8, epochs_lost=0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["history"][0]["accumulation"] == result["accumulation"]
    recipe = Recipe.load_file(tmp_path / "recipe.json")
    # oneDNN remembers what it could not make: only another process computes the batch at once
    manifest = fit(
        recipe,
        datasets=[parse_dataset(f"synthetic:{images}")],
        run=tmp_path / "whole",
        cache=tmp_path / "cache",
        runtime=LocalRuntime(device="cpu", cpus=1),
    )
    assert manifest.accumulation == 1
    parts, whole = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "whole"))
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_training_that_one_image_is_too_much_for_fails_with_the_reason(
    tmp_path: Path, images: Path
) -> None:
    result = train_within(tmp_path, images, megabytes=16)

    assert "out of memory with one image at a time" in result["failed"]
    assert "lower the crop" in result["failed"]
    assert micro_batch_of(tmp_path / "run", share=8) == 1
