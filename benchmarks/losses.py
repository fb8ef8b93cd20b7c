"""What each loss costs beside binary cross-entropy: value and backward pass of logits [4, 1, 256, 256].

All are measured in turns in one process, on one thread and in CPU time, which other work on the machine
changes little; a ratio is the median over the rounds of a loss's time over that of cross-entropy in the same
round. The loss with a network of its own has random weights, which cost the same, and two rounds. The labels
are drawn cracks. Maps of the labels are made before; their time stands apart.

Run: python benchmarks/losses.py [rounds]
"""

import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, get_args

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from fissura.core.files import write_json
from fissura.losses import BCE, VGG, AnyLoss, LossSpec, PersistentTopology, SoftClDice

IMAGES, SIZE, SEED, MOST = 4, 256, 0, 200.0
RESULT = Path(__file__).parent / "results" / "losses.json"


def drawn() -> tuple[Tensor, Tensor]:
    """Logits, and labels with cracks that wander from side to side, 3 to 7 pixels wide."""
    rng = np.random.default_rng(SEED)
    target = np.zeros((IMAGES, 1, SIZE, SIZE), np.float32)
    for image in target[:, 0]:
        row, width = SIZE / 2, rng.integers(1, 4)
        for column in range(SIZE):
            row = float(np.clip(row + rng.normal(), 8, SIZE - 8))
            image[int(row) - width : int(row) + width + 1, column] = 1
    logits = rng.normal(scale=2, size=target.shape).astype(np.float32) + 4 * target - 2
    return torch.from_numpy(logits), torch.from_numpy(target)


class Measured:
    """A loss and its times."""

    def __init__(self, loss: LossSpec, logits: Tensor, target: Tensor) -> None:
        self.loss, self.logits, self.target = loss, logits, target
        self.criterion, self.seconds = loss.criterion(1), list[float]()
        self.rounds = 2 if isinstance(loss, VGG) else sys.maxsize
        masks = {number: plane.numpy().astype(np.uint8) for number, (plane,) in enumerate(target)}
        loss.maps({}, masks)  # what is imported with the first
        start = time.process_time()
        made = loss.maps({}, masks)
        self.map_seconds = (time.process_time() - start) / IMAGES if made else None
        self.maps = {
            name: torch.from_numpy(np.stack([of[number] for number in masks])).float()[:, None]
            for name, of in made.items()
        }

    def measure(self) -> None:
        """One value with its backward pass."""
        logits = self.logits.clone().requires_grad_()
        start = time.process_time()
        cost = self.criterion((logits,), self.target, torch.ones_like(self.target), self.maps)
        cost.backward()
        self.seconds.append(time.process_time() - start)


def name_of(loss: Any) -> str:
    """The loss's kind, with the setting that its cost depends on most."""
    match loss:
        case SoftClDice():
            return f"{loss.kind}, {loss.iterations} erosions"
        case PersistentTopology():
            return f"{loss.kind}, compares {loss.compares}"
        case _:
            return str(loss.kind)


def main(rounds: int = 15) -> None:
    torch.set_num_threads(1)
    logits, target = drawn()
    members = get_args(get_args(AnyLoss)[0])
    specs = [VGG(weights="none") if member is VGG else member() for member in members]
    specs = [spec for spec in specs if not spec.needs and not spec.criterion(1).reads]
    specs += [SoftClDice(iterations=5), PersistentTopology(compares="both")]
    losses = [Measured(spec, logits, target) for spec in specs]
    for one in losses:
        one.measure()
    for one in losses:
        one.seconds.clear()
    for number in range(rounds):
        for one in losses:
            if number < one.rounds:
                one.measure()
    (base,) = (one.seconds for one in losses if isinstance(one.loss, BCE))
    rows: list[dict[str, Any]] = []
    print(f"logits [{IMAGES}, 1, {SIZE}, {SIZE}], {rounds} rounds: medians, value + backward")
    print(f"{'loss':32}{'ms':>10}{'times BCE':>12}{'least':>8}{'map, ms an image':>20}")
    for one in losses:
        ratios = [seconds / bce for seconds, bce in zip(one.seconds, base, strict=False)]
        name = name_of(one.loss)
        row = {
            "loss": name,
            "milliseconds": 1000 * median(one.seconds),
            "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
            "map_milliseconds": None if one.map_seconds is None else 1000 * one.map_seconds,
        }
        made = "" if one.map_seconds is None else f"{1000 * one.map_seconds:.1f}"
        print(f"{name:32}{row['milliseconds']:10.2f}{median(ratios):12.1f}{min(ratios):8.1f}{made:>20}")
        rows.append(row)
    write_json(
        RESULT, {"rounds": rounds, "shape": [IMAGES, 1, SIZE, SIZE], "torch": torch.__version__, "rows": rows}
    )
    if any(row["ratio"]["median"] > MOST for row in rows if row["loss"] != "vgg"):
        sys.exit(f"a loss without a network costs more than {MOST:g} times the cross-entropy")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
