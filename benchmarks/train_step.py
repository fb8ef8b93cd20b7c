"""A training step of three recipes against the loop that a paper's authors would write, in one run. No Ray.

The literal loop is float32 and eager: a Dataset that cuts one patch after the other out of images in memory,
a DataLoader, a contiguous network, the loss read at each step. Ours is the shipped Trainer with the recipe's
own feeding, in float32 and in bfloat16 where the device computes it natively. `waiting` is the share of the
epoch's time in which the step waited for its batch; `of peak` is the share of what the device's fastest
float32 matrix product, measured here, does (of bfloat16's for bfloat16).

Run: python benchmarks/train_step.py [repetitions]
"""

import math
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from fissura.core.files import write_json
from fissura.data.cache import PreparedData, prepare
from fissura.data.crop import AnyCrop, CrackPatches
from fissura.data.datasets import parse_dataset
from fissura.data.resize import Native
from fissura.data.synthetic import SyntheticSpec, write
from fissura.recipes import load_recipe
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import Recipe
from fissura.segmentation.trainer import Trainer
from fissura.spaces.fields import override
from fissura.training.mixed_precision import half_precision
from fissura.training.runtime import LocalRuntime

IMAGES, HEIGHT, WIDTH = 8, 320, 480
# PyTorch's counter takes the padding of dilated convolutions for work, and there is more padding than image
UNCOUNTED = ("deeplab_focal",)
RESULT = Path(__file__).parent / "results" / "train_step.json"
CASES: dict[str, dict[str, Any]] = {
    # recipe: what makes an epoch some seconds long on two cores
    "attention_resunet": {"data.crop.per_image": 64},
    "cirl": {
        "model.width": 16, "model.depth": 3, "data.crop.per_image": 8, "data.crop.size": 128,
        "data.augmentation.horizontal_flip": 0.0, "data.augmentation.rotate_90": 0.0,
        "phases.ambiguity.loss.kind": "bce", "phases.ambiguity.until": 1.0,
    },
    "deeplab_focal": {
        "model.backbone": "mobilenet_v3_large", "data.resize": {"kind": "native"}, "data.batch_size": 4,
        "data.crop": {"kind": "random", "size": 192, "per_image": 4}, "data.augmentation": {},
    },
}  # fmt: skip


class Patches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches cut out of images in memory, one at a time."""

    def __init__(self, data: PreparedData, crop: AnyCrop) -> None:
        indices = data.indices("train")
        self.images = [np.array(data.image(index)) for index in indices]
        self.masks = [np.array(data.mask(index)) for index in indices]
        self.crop = crop
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.images) * self.crop.per_image

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = (part[number % len(self.images)] for part in (self.images, self.masks))
        size = self.crop.size
        wanted = isinstance(self.crop, CrackPatches) and self.rng.random() < self.crop.crack_share
        for _ in range(100):
            top, left = (int(self.rng.integers(side - size + 1)) for side in mask.shape)
            window = mask[top : top + size, left : left + size]
            if not isinstance(self.crop, CrackPatches) or bool(window.any()) == wanted:
                break
        pixels = torch.from_numpy(image[top : top + size, left : left + size].copy()).permute(2, 0, 1)
        return pixels.float() / 255, torch.from_numpy(window.copy())[None].float()


def literal(recipe: Recipe, data: PreparedData, device: torch.device) -> float:
    """Images a second of one epoch of the literal loop."""
    crop, phase = recipe.data.crop, recipe.phases[0]
    torch.manual_seed(0)
    objective = PhaseObjective(recipe.model.build().to(device), phase.loss)
    rate, decay = phase.optimizer.lr, phase.optimizer.weight_decay
    optimizer = torch.optim.SGD(objective.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    batches = DataLoader(Patches(data, crop), batch_size=recipe.data.batch_size, shuffle=True)
    begin, images, total = time.perf_counter(), 0, 0.0
    for image, target in batches:
        target = target.to(device)
        loss, _ = objective(image.to(device), target, torch.ones_like(target), {})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        images += len(image)
    if not np.isfinite(total):
        raise ArithmeticError(f"{recipe.name}: the literal loop diverged")
    return images / (time.perf_counter() - begin)


def shipped(recipe: Recipe, data: PreparedData, folder: Path, runtime: LocalRuntime) -> tuple[float, float]:
    """Images a second, and the share of the time in which the step waited, of the Trainer's second epoch."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        trainer = Trainer(recipe, data=data, run=Path(run), runtime=runtime)
        trainer.step()
        record = trainer.step()
    return record["images_per_second"], record["wait_share"]


def operations(recipe: Recipe, device: torch.device) -> float:
    """Floating-point operations of forward and backward pass, an image."""
    size = recipe.data.crop.size  # type: ignore[union-attr]
    objective = PhaseObjective(recipe.model.build().to(device), recipe.phases[0].loss)
    maps = torch.zeros(2, 1, size, size, device=device)
    with FlopCounterMode(display=False) as counter:
        loss, _ = objective(torch.zeros(2, 3, size, size, device=device), maps, maps + 1, {})
        loss.backward()
    return counter.get_total_flops() / 2


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the device's fastest product of square matrices."""
    side = 1024 if device.type == "cpu" else 8192
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(60):
        begin = time.perf_counter()
        float((one @ other)[0, 0])
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best


def main(repetitions: int = 3) -> None:
    runtime = LocalRuntime()
    device = runtime.device
    half = half_precision("bfloat16", device)
    peaks = {"float32": peak(device, torch.float32)} | ({"bfloat16": peak(device, half)} if half else {})
    print(f"{device}, {runtime.cpus} threads, {repetitions} repetitions: medians")
    print(f"{'':20}{'images/s':>12}{'ratio (least)':>18}{'waiting':>10}{'of peak':>10}")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(SyntheticSpec(train=IMAGES, val=1, test=1, height=HEIGHT, width=WIDTH), folder / "set")
        dataset = parse_dataset(f"synthetic:{folder / 'set'}")
        data = prepare([dataset], resize=Native(), directory=folder / "cache")
        for name, values in CASES.items():
            base = override(load_recipe(name), {**values, "epochs": 2})
            each = math.nan if name in UNCOUNTED else operations(base, device)
            slow: list[float] = []
            fast: dict[str, list[tuple[float, float]]] = {precision: [] for precision in peaks}
            for _ in range(repetitions):
                slow.append(literal(base, data, device))
                for precision, found in fast.items():
                    recipe = base.model_copy(update={"precision": precision})
                    found.append(shipped(recipe, data, folder, runtime))
            print(
                f"{name + ', literal':20}{median(slow):12.1f}{'':28}"
                f"{each * median(slow) / peaks['float32']:10.1%}"
            )
            row: dict[str, Any] = {
                "recipe": name,
                "gflop_an_image": None if math.isnan(each) else each / 1e9,
                "literal_images_per_second": median(slow),
            }
            for precision, found in fast.items():
                rate, waiting = (median(values) for values in zip(*found, strict=True))
                ratios = [one / other for (one, _), other in zip(found, slow, strict=True)]
                share = each * rate / peaks[precision]
                row[precision] = {
                    "images_per_second": rate, "ratio_median": median(ratios), "ratio_min": min(ratios),
                    "wait_share": waiting, "peak_share": None if math.isnan(share) else share,
                }  # fmt: skip
                print(
                    f"{'  ' + precision:20}{rate:12.1f}{median(ratios):10.2f} ({min(ratios):.2f})"
                    f"{waiting:10.1%}{share:10.1%}",
                    flush=True,
                )
            rows.append(row)
    facts = {"device": str(device), "threads": runtime.cpus, "peak_operations_per_second": peaks}
    write_json(RESULT, {**facts, "repetitions": repetitions, "recipes": rows})


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
