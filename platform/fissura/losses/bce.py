"""Binary cross-entropy."""

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision
from fissura.losses.regions import marginal_region


class BCE(LossSpec):
    """Binary cross-entropy, the mean over the batch's valid pixels."""

    kind: Literal["bce"] = "bce"

    def build(self) -> "BCELoss":
        """The loss as a module."""
        return BCELoss()


class MarginlessBCE(LossSpec):
    """Binary cross-entropy without the marginal region, the non-crack pixels within the 5x5 square around a
    crack pixel (CIRL's Eq. 1 and Table 1): their labels are doubtful."""

    paper: ClassVar[Paper | None] = Paper("Chen et al.", "CIRL, CVPR", 2024)
    kind: Literal["marginless_bce"] = "marginless_bce"

    def build(self) -> "MarginlessBCELoss":
        """The loss as a module."""
        return MarginlessBCELoss()


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


class MarginlessBCELoss(BCELoss):
    """`BCELoss` whose V leaves the marginal region M of the label out."""

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        return super().forward(logits, target, valid * (1 - marginal_region(target * valid)))
