"""The soft Dice loss (Milletari et al., V-Net, 3DV 2016, with plain sums in the denominator)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class Dice(LossSpec):
    """The soft Dice loss.

    `over` says what one coefficient covers: the pixels of the whole `batch`, so that images without a crack
    do not dominate (common practice with thin structures, and the default), or those of each `image`, then
    averaged. `smooth` in numerator and denominator keeps loss and gradient of an empty mask finite.
    """

    paper: ClassVar[Paper | None] = Paper("Milletari et al.", "V-Net, 3DV", 2016)
    kind: Literal["dice"] = "dice"
    smooth: float = Field(1.0, gt=0, le=1e6)
    over: Literal["batch", "image"] = "batch"

    def build(self) -> "DiceLoss":
        """The loss as a module."""
        return DiceLoss(self)


class DiceLoss(SegmentationLoss):
    """`L = 1 - (2 sum_i p_i g_i + s) / (sum_i p_i + sum_i g_i + s)`, sums over valid pixels.

    g  label, 0 or 1        p  probability, the sigmoid of the logit        s  `smooth`
    """

    def __init__(self, spec: Dice) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        p, g = torch.sigmoid(z) * v, target.to(z.dtype) * v
        pixels = (0, 1, 2, 3) if self.spec.over == "batch" else (1, 2, 3)
        s = self.spec.smooth
        coefficient = (2 * (p * g).sum(pixels) + s) / (p.sum(pixels) + g.sum(pixels) + s)
        return 1 - coefficient.mean()
