"""The weighted sum of the Dice loss and the binary cross-entropy (Isnan et al., CMBN 2026)."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from fissura.losses.bce import BCE
from fissura.losses.dice import Dice
from fissura.losses.loss import LossSpec, SegmentationLoss


class DiceBCE(LossSpec):
    """`dice_weight` x Dice + `bce_weight` x BCE; `smooth` and `over` are those of `Dice`."""

    kind: Literal["dice_bce"] = "dice_bce"
    dice_weight: float = Field(1.0, ge=0, le=1e6)
    bce_weight: float = Field(1.0, ge=0, le=1e6)
    smooth: float = Field(1.0, gt=0, le=1e6)
    over: Literal["batch", "image"] = "batch"

    @model_validator(mode="after")
    def _weighs_something(self) -> "DiceBCE":
        if self.dice_weight == 0 and self.bce_weight == 0:
            raise ValueError(
                "dice_weight and bce_weight are both 0: the loss would be 0; make one of them positive"
            )
        return self

    def build(self) -> "DiceBCELoss":
        """The loss as a module."""
        return DiceBCELoss(self)


class DiceBCELoss(SegmentationLoss):
    """`L = w_D L_Dice + w_B L_BCE`, with w_D = `dice_weight` and w_B = `bce_weight`."""

    def __init__(self, spec: DiceBCE) -> None:
        super().__init__()
        self.spec = spec
        self.dice = Dice(smooth=spec.smooth, over=spec.over).build()
        self.bce = BCE().build()

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        dice, bce = self.dice(logits, target, valid), self.bce(logits, target, valid)
        total: Tensor = self.spec.dice_weight * dice + self.spec.bce_weight * bce
        return total
