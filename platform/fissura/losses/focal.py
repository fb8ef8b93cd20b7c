"""The normalised binary focal loss (Siriborvornratanakul, Advances in Multimedia 2022)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision

NEVER = -1e30  # the logarithm of a weight of zero; finite, so that a class without pixels is no 0/0


class Focal(LossSpec):
    """The normalised focal loss; `alpha` weighs the background's half, `gamma` the hard pixels of each half.

    `normaliser` says how the gradient treats the weights. `differentiated`, the formula as it stands: as
    functions of the logits. The weights of a class sum to 1, so a pixel easier than its class's mean can
    lower the loss by becoming harder: its gradient points the wrong way, unless the pixel is uncertain
    itself. `constant`: as numbers, and every pixel is pushed towards its label. The value is the same.
    """

    paper: ClassVar[Paper | None] = Paper("Siriborvornratanakul", "Advances in Multimedia", 2022)
    kind: Literal["focal"] = "focal"
    alpha: float = Field(3.0, ge=0, le=1e6)
    gamma: float = Field(2.0, ge=0, le=100)
    normaliser: Literal["constant", "differentiated"] = "differentiated"

    def build(self) -> "FocalLoss":
        """The loss as a module."""
        return FocalLoss(self)


class FocalLoss(SegmentationLoss):
    """`L = L+ + L-`, each half a weighted mean over the valid pixels of one class, and 0 where it has none.

    `L+ = - sum_{y=1} (1-p)^gamma log p / sum_{y=1} (1-p)^gamma`
    `L- = - alpha sum_{y=0} p^gamma log(1-p) / sum_{y=0} p^gamma`

    y  label, 0 or 1        p  probability, the sigmoid of the logit
    """

    def __init__(self, spec: Focal) -> None:
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
        crack = target > 0.5
        background = self._half(-z, (valid > 0) & ~crack)
        return self._half(z, (valid > 0) & crack) + self.spec.alpha * background

    def _half(self, z: Float[Tensor, "b 1 h w"], pixels: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        """The weighted mean of -log p over the `pixels` of a class; p, its probability, is the sigmoid of
        z."""
        # weights that all underflow still have ratios: softmax takes them from the logarithms
        log_weight = torch.where(pixels, self.spec.gamma * logsigmoid(-z), NEVER)
        weight = torch.softmax(log_weight.flatten(), dim=0)
        if self.spec.normaliser == "constant":
            weight = weight.detach()
        return (weight * torch.where(pixels, softplus(-z), 0.0).flatten()).sum()
