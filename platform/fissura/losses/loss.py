"""What every segmentation loss is: one number from logits, labels and the mask of valid pixels."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SegmentationLoss(nn.Module, ABC):
    """A loss of crack logits. Pixels with `valid` = 0 count for nothing; their gradient is exactly zero."""

    @abstractmethod
    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch; `target` (1 = crack) and `valid` hold only 0 and 1."""


def full_precision(
    logits: Float[Tensor, "b 1 h w"], valid: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """The logits in at least float32 (sums over an image overflow float16); 0 where invalid, even if NaN."""
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return torch.where(valid > 0, wide, 0.0)
