"""The soft centre-line Dice loss, with Dice (Shit et al., clDice, CVPR 2021)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import max_pool2d, relu

from fissura.core.paper import Paper
from fissura.losses.dice import Dice
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class SoftClDice(LossSpec):
    """`1 - a` of the Dice loss and `a` of the soft clDice loss, over the batch.

    `iterations` must reach the middle of a crack, or its skeleton is empty: at least (width - 1) / 2, rounded
    down: 5 for CFD, 20 for CRACK500. `a` is below 1: a map of ones has no skeleton and costs nothing.
    """

    paper: ClassVar[Paper | None] = Paper("Shit et al.", "clDice, CVPR", 2021)
    kind: Literal["cldice"] = "cldice"
    a: float = Field(0.5, ge=0, lt=1)
    iterations: int = Field(10, ge=0, le=100)

    def build(self) -> "SoftClDiceLoss":
        """The loss as a module."""
        return SoftClDiceLoss(self)


class SoftClDiceLoss(SegmentationLoss):
    """`L = (1 - a) L_Dice + a (1 - 2 T_prec T_sens / (T_prec + T_sens))`, sums over valid pixels.

    `T_prec = (sum_i S(p)_i g_i + 1) / (sum_i S(p)_i + 1)`
    `T_sens = (sum_i S(g)_i p_i + 1) / (sum_i S(g)_i + 1)`

    g  label, 0 or 1        p  probability, the sigmoid of the logit; both 0 where invalid
    S  soft skeleton        L_Dice  the Dice loss with `smooth` 1
    """

    def __init__(self, spec: SoftClDice) -> None:
        super().__init__()
        self.spec, self.dice = spec, Dice().build()

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        v, a = valid.to(z.dtype), self.spec.a
        p, g = z.sigmoid() * v, target.to(z.dtype) * v
        skeleton_p, skeleton_g = (soft_skeleton(x, iterations=self.spec.iterations) for x in (p, g))
        precision = ((skeleton_p * g).sum() + 1) / (skeleton_p.sum() + 1)
        sensitivity = ((skeleton_g * p).sum() + 1) / (skeleton_g.sum() + 1)
        centre = 1 - 2 * precision * sensitivity / (precision + sensitivity)
        overlap: Tensor = self.dice(logits, target, valid)
        return (1 - a) * overlap + a * centre


def soft_skeleton(x: Float[Tensor, "b 1 h w"], *, iterations: int) -> Float[Tensor, "b 1 h w"]:
    """What the opening of x removes, collected over `iterations` erosions; of a map of 0 and 1, Lantuejoul's
    skeleton. Erosion is the minimum over a pixel and its four neighbours, dilation the maximum over 3 x 3,
    within the image."""
    # an opening begins with the erosion that the next step needs as well
    eroded = _erode(x)
    skeleton = relu(x - _dilate(eroded))
    for _ in range(iterations):
        x, eroded = eroded, _erode(eroded)
        left = relu(x - _dilate(eroded))
        skeleton = skeleton + relu(left - skeleton * left)
    return skeleton


def _erode(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    upright = max_pool2d(-x, (3, 1), stride=1, padding=(1, 0))
    return -torch.maximum(upright, max_pool2d(-x, (1, 3), stride=1, padding=(0, 1)))


def _dilate(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    return max_pool2d(x, 3, stride=1, padding=1)
