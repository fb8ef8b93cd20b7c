"""Binary cross-entropy in which cracks weigh more (after Xie and Tu, HED, ICCV 2015)."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class WeightedBCE(LossSpec):
    """Binary cross-entropy whose crack pixels weigh `crack_weight`; None: the ratio of valid non-crack to
    crack pixels of the batch, at least 1 and at most `cap`.

    Cracks come out thick, and the probabilities are not calibrated: the threshold moves to about w / (1 + w).
    """

    paper: ClassVar[Paper | None] = Paper("Xie and Tu", "HED, ICCV", 2015)
    kind: Literal["weighted_bce"] = "weighted_bce"
    crack_weight: float | None = Field(None, gt=0, le=1e6)
    cap: float = Field(20.0, ge=1, le=1e6)

    def build(self) -> "WeightedBCELoss":
        """The loss as a module."""
        return WeightedBCELoss(self)


class WeightedBCELoss(SegmentationLoss):
    """`L = - 1/|V| sum_{i in V} ( w g_i log p_i + (1 - g_i) log(1 - p_i) )`, and 0 where V is empty.

    g  label, 0 or 1        p  probability, the sigmoid of the logit        V  valid pixels of the batch
    w  the weight of a crack pixel; the sum is not divided by the weights
    """

    def __init__(self, spec: WeightedBCE) -> None:
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
        pixels = binary_cross_entropy_with_logits(
            z, g, weight=v, pos_weight=self._weight(g, v), reduction="sum"
        )
        return pixels / v.sum().clamp(min=1)

    def _weight(self, g: Float[Tensor, "b 1 h w"], v: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        if self.spec.crack_weight is not None:
            return g.new_tensor(self.spec.crack_weight)
        cracks = (g * v).sum()
        return ((v.sum() - cracks) / cracks.clamp(min=1)).clamp(min=1, max=self.spec.cap)
