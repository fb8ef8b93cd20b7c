"""The weighted sum of the Dice loss and the binary cross-entropy (Isnan et al., CMBN 2026)."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from fissura.core.paper import Paper
from fissura.losses.bce import BCE
from fissura.losses.dice import Dice
from fissura.losses.loss import LossSpec
from fissura.losses.weighted_sum import SumCriterion, Term, WeightedSum


class DiceBCE(LossSpec):
    """`L = w_D L_Dice + w_B L_BCE`, with w_D = `dice_weight` and w_B = `bce_weight`: the `WeightedSum` of the
    two with a name and fields of its own, which studies, search spaces and runs use. `smooth` and `over` are
    those of `Dice`."""

    paper: ClassVar[Paper | None] = Paper("Isnan et al.", "CMBN", 2026)
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

    @property
    def sum(self) -> WeightedSum:
        """The same loss, term by term."""
        dice = Dice(smooth=self.smooth, over=self.over)
        return WeightedSum(
            terms=(
                Term(name="dice", weight=self.dice_weight, loss=dice),
                Term(name="bce", weight=self.bce_weight, loss=BCE()),
            )
        )

    def criterion(self, feature_channels: int) -> SumCriterion:
        """The criterion of `sum`."""
        return self.sum.criterion(feature_channels)
