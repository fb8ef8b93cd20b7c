"""The noise-robust Dice loss (Wang et al., COPLE-Net, IEEE TMI 2020)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class RobustDice(LossSpec):
    """The noise-robust Dice loss over the batch: `gamma` 1 counts each error once, as a mean absolute error
    does, so that wrong labels pull less; 2 is Dice with squares, and `smooth`, in the denominator.

    Where few pixels are crack and gamma is below 2, less sure false alarms can cost more than sure ones (the
    ratio grows as p becomes small). A batch without a crack, where only false alarms would count, costs
    nothing: add a loss that sees such batches, such as the cross-entropy.
    """

    paper: ClassVar[Paper | None] = Paper("Wang et al.", "COPLE-Net, TMI", 2020)
    kind: Literal["robust_dice"] = "robust_dice"
    gamma: float = Field(1.5, ge=1, le=2)
    smooth: float = Field(1e-5, gt=0, le=1e6)

    def build(self) -> "RobustDiceLoss":
        """The loss as a module."""
        return RobustDiceLoss(self)


class RobustDiceLoss(SegmentationLoss):
    """`L = sum_i |p_i - g_i|^gamma / (sum_i p_i^2 + sum_i g_i^2 + s)`, sums over valid pixels; 0 where no g
    is 1.

    g  label, 0 or 1        p  probability, the sigmoid of the logit        s  `smooth`
    """

    def __init__(self, spec: RobustDice) -> None:
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
        g = target.to(z.dtype) * v
        # |p - g|, without cancellation
        error = torch.sigmoid(torch.where(g > 0, -z, z)) * v
        wrong = error.pow(self.spec.gamma).sum()
        cost = wrong / ((z.sigmoid() * v).square().sum() + g.sum() + self.spec.smooth)
        return torch.where(g.sum() > 0, cost, 0.0)
