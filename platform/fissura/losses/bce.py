"""Binary cross-entropy."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class BCE(LossSpec):
    """Binary cross-entropy, the mean over the batch's valid pixels."""

    kind: Literal["bce"] = "bce"

    def build(self) -> "BCELoss":
        """The loss as a module."""
        return BCELoss()


class BCELoss(SegmentationLoss):
    """`L = - 1/|V| sum_{i in V} ( g_i log p_i + (1 - g_i) log(1 - p_i) )`, and 0 where V is empty.

    g  label, 0 or 1        p  probability, the sigmoid of the logit        V  valid pixels of the batch
    """

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        pixels = binary_cross_entropy_with_logits(z, target.to(z.dtype), weight=v, reduction="sum")
        return pixels / v.sum().clamp(min=1)
