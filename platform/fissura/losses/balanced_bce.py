"""Binary cross-entropy in which cracks and background weigh as much (Liu et al., RCF, CVPR 2017)."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class BalancedBCE(LossSpec):
    """Class-balanced binary cross-entropy: a crack pixel weighs the share of the background, a background
    pixel `background` times the share of cracks; 1.1 in RCF and CrackFormer-II, 1 in HED (ICCV 2015).

    With `background` 1 it is `weighted_bce` without its cap, times the share of cracks: a batch with few
    cracks costs little, and one without a crack nothing.
    """

    paper: ClassVar[Paper | None] = Paper("Liu et al.", "RCF, CVPR", 2017)
    kind: Literal["balanced_bce"] = "balanced_bce"
    background: float = Field(1.1, gt=0, le=1e6)

    def build(self) -> "BalancedBCELoss":
        """The loss as a module."""
        return BalancedBCELoss(self)


class BalancedBCELoss(SegmentationLoss):
    """`L = - 1/|V| sum_{i in V} ( (1 - c) g_i log p_i + a c (1 - g_i) log(1 - p_i) )`;
    0 where V is empty.

    g  label, 0 or 1        p  probability, the sigmoid of the logit        V  valid pixels of the batch
    c  the share of cracks among V        a  `background`
    """

    def __init__(self, spec: BalancedBCE) -> None:
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
        v, g = valid.to(z.dtype), target.to(z.dtype)
        seen = v.sum().clamp(min=1)
        c = (g * v).sum() / seen
        weight = v * (g * (1 - c) + (1 - g) * self.spec.background * c)
        return binary_cross_entropy_with_logits(z, g, weight=weight, reduction="sum") / seen
