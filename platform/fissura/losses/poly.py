"""Cross-entropy or focal loss with another first term of its series (Leng et al., PolyLoss, ICLR 2022)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from fissura.core.paper import Paper
from fissura.losses.lin_focal import focal_pixels, towards_label
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class Poly(LossSpec):
    """Poly-1, the mean over the batch's valid pixels: `epsilon` is added to the first coefficient, 1, of the
    base's series in 1 - q. Above 0 it pushes sure errors harder, by a bounded amount; 0 is the base itself.

    `base` is the cross-entropy (`bce`) or the focal loss without alpha (`focal`), which alone reads `gamma`.
    """

    paper: ClassVar[Paper | None] = Paper("Leng et al.", "PolyLoss, ICLR", 2022)
    kind: Literal["poly"] = "poly"
    base: Literal["bce", "focal"] = "bce"
    # below -1 the first term would reward errors
    epsilon: float = Field(1.0, ge=-1, le=1e6)
    gamma: float = Field(2.0, ge=0, le=100)

    def build(self) -> "PolyLoss":
        """The loss as a module."""
        return PolyLoss(self)


class PolyLoss(SegmentationLoss):
    """`L = 1/|V| sum_{i in V} ( - (1 - q_i)^gamma log q_i + epsilon (1 - q_i)^(gamma + 1) )`, gamma 0 for
    `bce`; 0 where V is empty.

    q  probability of the pixel's own label        V  valid pixels of the batch
    """

    def __init__(self, spec: Poly) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        own = towards_label(full_precision(logits, valid), target)
        v, gamma = valid.to(own.dtype), self.spec.gamma if self.spec.base == "focal" else 0.0
        first = torch.exp((gamma + 1) * logsigmoid(-own))
        pixels = focal_pixels(own, gamma=gamma) + self.spec.epsilon * first
        return (v * pixels).sum() / v.sum().clamp(min=1)
