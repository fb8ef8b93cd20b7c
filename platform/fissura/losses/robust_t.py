"""The robust T-loss, whose tolerance of wrong labels is learned (Gonzalez-Jimenez et al., MICCAI 2023)."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision

LEAST = 1e-8


class RobustT(LossSpec):
    """The robust T-loss, the mean over the images. Its degrees of freedom, at first `nu`, are trained with
    the network by the phase's optimizer, whose weight decay pulls them towards 1, and kept in the checkpoint.

    `per` `pixel` divides an image's cost by its valid pixels, so that the loss works beside others and with
    SGD; `image`, as published, does not (about -58,000 at 256 x 256).
    """

    paper: ClassVar[Paper | None] = Paper("Gonzalez-Jimenez et al.", "T-Loss, MICCAI", 2023)
    kind: Literal["robust_t"] = "robust_t"
    nu: float = Field(1.0, ge=1e-3, le=1e6)
    per: Literal["pixel", "image"] = "pixel"

    def build(self) -> "RobustTLoss":
        """The loss as a module."""
        return RobustTLoss(self)


class RobustTLoss(SegmentationLoss):
    """`L = - lgamma((nu + D)/2) + lgamma(nu/2) + D/2 log(pi nu) + (nu + D)/2 log(1 + |d|^2 / nu)` for an
    image: minus the logarithm of the density of Student's t with unit scale, in D dimensions.

    d   the residuals p - g of the image's valid pixels, D of them; p the sigmoid of the logit, g the label
    nu  degrees of freedom, exp(n) + 1e-8, with n a parameter

    Readings: the paper's precisions, all 1, are left out; D is the number of valid pixels, not of all.
    """

    def __init__(self, spec: RobustT) -> None:
        super().__init__()
        self.spec = spec
        self.n = nn.Parameter(torch.tensor(math.log(spec.nu)))

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        v, nu = valid.to(z.dtype), self.n.to(z.dtype).exp() + LEAST
        squared = (v * (z.sigmoid() - target.to(z.dtype)).square()).sum((1, 2, 3))
        pixels = v.sum((1, 2, 3))
        half = (nu + pixels) / 2
        # (nu + D)/2 log(1 + |d|^2/nu) + D/2 log nu, written so that only nu/2 log nu cancels
        spread = half * torch.log(nu + squared) - nu / 2 * torch.log(nu)
        costs = torch.lgamma(nu / 2) - torch.lgamma(half) + pixels / 2 * math.log(math.pi) + spread
        return (costs / pixels.clamp(min=1) if self.spec.per == "pixel" else costs).mean()
