"""A loss in one file: the soft Jaccard loss (Rahman and Wang, 2016), held to the contract and trained with.

    python examples/new_loss.py KIND:ROOT STUDIES

What is read back from disk must be known by its kind, so recipes take a loss when its spec is in the union
`AnyLoss`: in a checkout, this file in `platform/fissura/losses/` and one name in its `__init__.py`. Here
`add_to_the_union` writes that name while the program runs, before anything reads the union. That holds for
this process alone: for a search, whose trials are processes of their own, put it into the package.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import fissura.losses
from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision
from fissura.testing.losses import LossCase, check_loss


class Jaccard(LossSpec):
    """`smooth` is added above and below, so that a mask without a crack has a finite loss and gradient."""

    paper: ClassVar[Paper | None] = Paper("Rahman and Wang", "ISVC", 2016)
    kind: Literal["jaccard"] = "jaccard"
    smooth: float = Field(1.0, gt=0, le=1e6)

    def build(self) -> "JaccardLoss":
        """The loss as a module."""
        return JaccardLoss(self)


class JaccardLoss(SegmentationLoss):
    """`L = 1 - (I + s) / (U + s)`, I and U the soft intersection and union over valid pixels, s `smooth`."""

    def __init__(self, spec: Jaccard) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The loss of a batch; each [b, 1, h, w]."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        p, g = torch.sigmoid(z) * v, target.to(z.dtype) * v
        both, s = (p * g).sum(), self.spec.smooth
        return 1 - (both + s) / (p.sum() + g.sum() - both + s)


def formula(logits: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    """The paper's formula, pixel by pixel, with 1 above and below."""
    both, either = 1.0, 1.0
    for z, g, v in zip(logits.flat, target.flat, valid.flat, strict=True):
        p = 1 / (1 + np.exp(-z))
        both, either = both + v * p * g, either + v * (p + g - p * g)
    return 1 - both / either


def add_to_the_union() -> None:
    """In a checkout: `AnyLoss = Annotated[BCE | Dice | ... | Jaccard, Field(discriminator="kind")]`."""
    known = get_args(fissura.losses.AnyLoss)[0]
    fissura.losses.AnyLoss = Annotated[known | Jaccard, Field(discriminator="kind")]


def main(data: str, studies: str) -> None:
    """Checks the loss, and trains the small U-Net with it for two epochs."""
    check_loss(LossCase(Jaccard(), formula))
    print("the loss holds what every loss is held to")

    add_to_the_union()
    from fissura.recipes import load_recipe

    plain = load_recipe("small_unet").plain()
    plain["phases"][0]["loss"] = Jaccard(smooth=0.5).plain()
    recipe = Path(studies) / "jaccard.json"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(json.dumps(plain))
    trained = fissura.train(recipe, data=data, storage=studies, fixed={"epochs": 2, "model.width": 4})
    print(trained)


if __name__ == "__main__":
    main(*sys.argv[1:])
