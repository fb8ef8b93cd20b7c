"""The focal loss as its authors wrote it (Lin et al., ICCV 2017)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class LinFocal(LossSpec):
    """The focal loss, the mean over the batch's valid pixels; `Focal` is the one that is normalised.

    `gamma` lowers the cost of easy pixels. `alpha` weighs cracks and 1 - alpha the rest, so the paper's 0.25
    weighs cracks *down*; where 1 % of the pixels are crack, try 0.75 too. None weighs every pixel 1.
    """

    paper: ClassVar[Paper | None] = Paper("Lin et al.", "ICCV", 2017)
    kind: Literal["lin_focal"] = "lin_focal"
    gamma: float = Field(2.0, ge=0, le=100)
    alpha: float | None = Field(0.25, ge=0, le=1)

    def build(self) -> "LinFocalLoss":
        """The loss as a module."""
        return LinFocalLoss(self)


class LinFocalLoss(SegmentationLoss):
    """`L = - 1/|V| sum_{i in V} a_i (1 - q_i)^gamma log q_i`, and 0 where V is empty.

    q  probability of the pixel's own label, the paper's p_t        V  valid pixels of the batch
    a  alpha where the label is crack, else 1 - alpha

    Reading: the paper divides by the boxes that hold an object; here it is the mean.
    """

    def __init__(self, spec: LinFocal) -> None:
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
        pixels = focal_pixels(towards_label(z, target), gamma=self.spec.gamma)
        if self.spec.alpha is not None:
            pixels = pixels * torch.where(target > 0, self.spec.alpha, 1 - self.spec.alpha)
        return (v * pixels).sum() / v.sum().clamp(min=1)


def towards_label(z: Float[Tensor, "b 1 h w"], target: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The logit of each pixel's own label."""
    return torch.where(target > 0, z, -z)


def focal_pixels(own: Float[Tensor, "b 1 h w"], *, gamma: float) -> Float[Tensor, "b 1 h w"]:
    """`-(1 - q)^gamma log q` where q is the sigmoid of `own`."""
    # the power from the logarithm: a base that underflows would have an infinite slope where gamma < 1
    return torch.exp(gamma * logsigmoid(-own)) * softplus(-own)
