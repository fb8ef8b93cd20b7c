"""The Tversky loss (Salehi et al., MLMI 2017) and the focal Tversky loss (Abraham and Khan, ISBI 2019)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision

NEAR = 1e-6  # at 0 the slope of a power below 1 is infinite


class Tversky(LossSpec):
    """The Tversky loss over the batch: `fp` weighs false alarms, `fn` missed cracks (papers disagree which is
    alpha). `smooth` is in numerator and denominator; 0.5 and 0.5 with half of Dice's `smooth` is Dice."""

    paper: ClassVar[Paper | None] = Paper("Salehi et al.", "MLMI", 2017)
    kind: Literal["tversky"] = "tversky"
    fp: float = Field(0.3, gt=0, le=1e3)
    fn: float = Field(0.7, gt=0, le=1e3)
    smooth: float = Field(1.0, gt=0, le=1e6)

    def build(self) -> "TverskyLoss":
        """The loss as a module."""
        return TverskyLoss(fp=self.fp, fn=self.fn, smooth=self.smooth)


class FocalTversky(LossSpec):
    """The Tversky loss to the power 1 / `gamma`: above 1, the slope grows as the overlap becomes better."""

    paper: ClassVar[Paper | None] = Paper("Abraham and Khan", "ISBI", 2019)
    kind: Literal["focal_tversky"] = "focal_tversky"
    gamma: float = Field(4 / 3, ge=0.25, le=4)
    fp: float = Field(0.3, gt=0, le=1e3)
    fn: float = Field(0.7, gt=0, le=1e3)
    smooth: float = Field(1.0, gt=0, le=1e6)

    def build(self) -> "TverskyLoss":
        """The loss as a module."""
        return TverskyLoss(fp=self.fp, fn=self.fn, smooth=self.smooth, gamma=self.gamma)


class TverskyLoss(SegmentationLoss):
    """`L = (1 - TI)^(1/gamma)`, with `TI = (TP + s) / (TP + fp FP + fn FN + s)`; sums over valid pixels.

    TP  sum_i p_i g_i        FP  sum_i p_i (1 - g_i)        FN  sum_i (1 - p_i) g_i
    g   label, 0 or 1        p   probability, the sigmoid of the logit        s  `smooth`

    With e = 1e-6 in it, `(1 - TI) (1 - TI + e)^(1/gamma - 1)`, the slope is finite at TI = 1.
    """

    def __init__(self, *, fp: float, fn: float, smooth: float, gamma: float = 1.0) -> None:
        super().__init__()
        self.fp, self.fn, self.smooth, self.gamma = fp, fn, smooth, gamma

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        g = target.to(z.dtype) * v
        # 1 - p from the logit: it does not cancel
        tp, fp, fn = (
            torch.sum(part) for part in (z.sigmoid() * g, z.sigmoid() * (v - g), torch.sigmoid(-z) * g)
        )
        wrong = self.fp * fp + self.fn * fn
        lost = wrong / (tp + wrong + self.smooth)
        return lost * (lost + NEAR) ** (1 / self.gamma - 1)
