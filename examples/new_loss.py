"""A loss in one file: the Tversky loss (Salehi et al., 2017), held to fissura's contract, and trained with.

    python examples/new_loss.py KIND:ROOT STUDIES

What is read back from disk must be known by its kind, so recipes take a loss when its spec is in the union
`AnyLoss`: in a checkout, this file in `platform/fissura/losses/` and one name in its `__init__.py`. Here
`add_to_the_union` writes that name while the program runs, before anything reads the union. That holds for
this process alone: for a search, whose trials are processes of their own, put it into the package.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import fissura.losses
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision
from fissura.testing.losses import LossCase, check_loss


class Tversky(LossSpec):
    """`alpha` weighs false alarms, `beta` missed cracks; 0.5 and 0.5 is Dice."""

    kind: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, gt=0, le=1)
    beta: float = Field(0.7, gt=0, le=1)

    def build(self) -> "TverskyLoss":
        """The loss as a module."""
        return TverskyLoss(self)


class TverskyLoss(SegmentationLoss):
    """`L = 1 - (TP + 1) / (TP + alpha FP + beta FN + 1)`, sums of probabilities over valid pixels."""

    def __init__(self, spec: Tversky) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The loss of a batch; each [b, 1, h, w]."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        p, g = torch.sigmoid(z) * v, target.to(z.dtype) * v
        right = (p * g).sum()
        wrong = self.spec.alpha * (p.sum() - right) + self.spec.beta * (g.sum() - right)
        return 1 - (right + 1) / (right + wrong + 1)


def formula(logits: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """The paper's formula, pixel by pixel, with the default weights."""
    right, alarms, missed = 0.0, 0.0, 0.0
    for z, g, v in zip(logits.flat, target.flat, valid.flat, strict=True):
        p = 1 / (1 + np.exp(-z))
        right, alarms, missed = right + v * p * g, alarms + v * p * (1 - g), missed + v * (1 - p) * g
    return 1 - (right + 1) / (right + 0.3 * alarms + 0.7 * missed + 1)


def add_to_the_union() -> None:
    """In a checkout: `AnyLoss = Annotated[BCE | Dice | ... | Tversky, Field(discriminator="kind")]`."""
    known = get_args(fissura.losses.AnyLoss)[0]
    fissura.losses.AnyLoss = Annotated[known | Tversky, Field(discriminator="kind")]


def main(data: str, studies: str) -> None:
    """Checks the loss, and trains the small U-Net with it for two epochs."""
    # sums over few pixels: right and sure logits still cost what the 1 above and below adds
    check_loss(LossCase(Tversky(), formula))
    print("the loss holds what every loss is held to")

    add_to_the_union()
    from fissura.recipes import load_recipe

    plain = load_recipe("small_unet").plain()
    plain["phases"][0]["loss"] = Tversky(beta=0.6).plain()
    recipe = Path(studies) / "tversky.json"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(json.dumps(plain))
    trained = fissura.train(recipe, data=data, storage=studies, fixed={"epochs": 2, "model.width": 4})
    print(trained)


if __name__ == "__main__":
    main(*sys.argv[1:])
