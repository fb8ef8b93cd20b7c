"""The ambiguity-aware segmentation loss (Chen et al., CVPR 2024), which learns a variance for every pixel."""

import math
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.losses.bce import BCE
from fissura.losses.loss import BatchMaps, Criterion, ImageMaps, LossSpec, Predict, full_precision

VARIANCE = "variance"
FLOOR = -40.0  # the squared error that this log-variance fits is below what a float32 probability can show


class AmbiguityAware(LossSpec):
    """The ambiguity-aware loss, the mean over the batch's valid pixels.

    `lam`, the paper's lambda, is the squared error above which a larger variance costs less. `distance`, from
    the predicted Gaussian to the label, is `wasserstein` or `kl`, the paper's ablation, which ignores `lam`.
    """

    paper: ClassVar[Paper | None] = Paper("Chen et al.", "CIRL, CVPR", 2024)
    kind: Literal["ambiguity_aware"] = "ambiguity_aware"
    lam: float = Field(0.3, gt=0, le=10)
    distance: Literal["wasserstein", "kl"] = "wasserstein"

    def build(self) -> "AmbiguityAwareLoss":
        """The loss as a module."""
        return AmbiguityAwareLoss(self)

    def criterion(self, feature_channels: int) -> "AmbiguityCriterion":
        """The loss with its std head."""
        return AmbiguityCriterion(self.build(), feature_channels=feature_channels)

    @property
    def leaves(self) -> frozenset[str]:
        """The variance map of each training image, as Phase I leaves it: sigma^2 / (1 + sigma^2), float16."""
        return frozenset({VARIANCE})


class AmbiguityCriterion(Criterion):
    """Phase I of CIRL: the std head, a 1x1 convolution of the features, gives each pixel's log variance."""

    reads = 1

    def __init__(self, loss: "AmbiguityAwareLoss", *, feature_channels: int) -> None:
        super().__init__(loss)
        self.std_head = nn.Conv2d(feature_channels, 1, 1)

    def readings(self, features: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """The log variances."""
        return (self.std_head(features).float(),)

    def side_loss(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy: only the crack logits have a variance."""
        loss: Tensor = BCE().build()(logits, target, valid)
        return loss

    def finish_phase(self, predict: Predict) -> dict[str, ImageMaps]:
        """The variance maps that `AmbiguityAware.leaves` names: the sigmoid of the log variance."""
        return {VARIANCE: {index: share.astype(np.float16) for index, share in predict(self.std_head)}}


class AmbiguityAwareLoss(nn.Module):
    """`wasserstein`: `L = 1/|V| sum_{i in V} (d_i^2 + exp(s_i)) / (lambda + exp(s_i))` (Eq. 7);
    `kl`: `L = 1/|V| sum_{i in V} ( d_i^2 exp(-s_i) + s_i ) / 2` (He et al., CVPR 2019, for |d| <= 1).
    0 where V is empty.

    d  probability (the sigmoid of the logit) - label        s  log-variance, the logarithm of sigma^2
    V  valid pixels of the batch

    Reading: the paper sums over the pixels; the mean does not grow with the crop.
    Below s = -40, `kl` continues exp(-s) by its tangent, so that value and gradient stay finite.
    """

    def __init__(self, spec: AmbiguityAware) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        log_variance: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch; `target` (1 = crack) and `valid` hold only 0 and 1. Pixels with `valid` = 0
        count for nothing; their gradients are exactly zero."""
        z, s = full_precision(logits, valid), full_precision(log_variance, valid)
        v = valid.to(z.dtype)
        squared = (torch.sigmoid(z) - target.to(z.dtype)) ** 2
        pixels = self._wasserstein(squared, s) if self.spec.distance == "wasserstein" else _kl(squared, s)
        return (v * pixels).sum() / v.sum().clamp(min=1)

    def _wasserstein(
        self, squared: Float[Tensor, "b 1 h w"], s: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        # 1 / (lambda + exp(s)) is sigmoid(log lambda - s) / lambda: nothing here can overflow or cancel
        excess = s - math.log(self.spec.lam)
        return squared / self.spec.lam * torch.sigmoid(-excess) + torch.sigmoid(excess)


def _kl(squared: Float[Tensor, "b 1 h w"], s: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    floored = s.clamp(min=FLOOR)
    precision = torch.exp(-floored) * (1 + floored - s)
    return (squared * precision + s) / 2
