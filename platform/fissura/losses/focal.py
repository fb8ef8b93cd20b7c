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

    `normaliser` says what the gradient takes the weights for. `differentiated`, the formula as it stands:
    they are functions of the logits, and the gradient is that of the value. As the weights of a class add up
    to 1, a pixel easier than its class's mean can then lower the loss by becoming harder, which is the wrong
    way: so goes its gradient, unless the pixel is uncertain itself. `constant`: the weights are numbers, and
    every pixel is pushed towards its label. The values are the same.
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

    def _half(self, z: Float[Tensor, "b 1 h w"], of: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        """The weighted mean of -log p over the pixels `of` a class; p, the sigmoid of z, is that class's."""
        # weights that all underflow still have ratios: softmax takes them from the logarithms
        log_weight = torch.where(of, self.spec.gamma * logsigmoid(-z), NEVER)
        weight = torch.softmax(log_weight.flatten(), dim=0)
        if self.spec.normaliser == "constant":
            weight = weight.detach()
        return (weight * torch.where(of, softplus(-z), 0.0).flatten()).sum()
