"""The boundary loss: probabilities weighted by their distance from the cracks' contour (Kervadec et al., MIDL
2019)."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8
from pydantic import Field
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.losses.label_maps import LabelMapSpec
from fissura.losses.loss import full_precision


class Boundary(LabelMapSpec):
    """The boundary loss, the mean over the batch's valid pixels; negative for cracks that are found. Add it
    to Dice with a small weight that grows: in the paper `weight` 0.01 and `growth` 0.01 of its term.

    `contour` says where the distance is 0: on a crack's outermost pixels (`on_crack`), as published, where
    finding a crack two pixels wide costs no less than missing it; or between those pixels, at -1, and their
    neighbours, at 1 (`between`). Distances are clipped to `clip` pixels, or far pixels would dominate.
    """

    paper: ClassVar[Paper | None] = Paper("Kervadec et al.", "MIDL", 2019)
    map_name: ClassVar[str] = "distance"
    map_type: ClassVar[type[np.generic]] = np.float16  # half the memory; right to 1/100 pixel
    kind: Literal["boundary"] = "boundary"
    contour: Literal["between", "on_crack"] = "between"
    clip: float = Field(20.0, gt=0, le=1e4)

    def build(self) -> "BoundaryLoss":
        """The loss as a module."""
        return BoundaryLoss()

    def of_mask(self, mask: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """phi, in pixels: above 0 outside of the cracks, below 0 inside; 0 everywhere in a mask without a
        contour."""
        crack = mask > 0
        if crack.all() or not crack.any():
            return np.zeros(mask.shape, np.float32)
        inside = distance_transform_edt(crack)
        if self.contour == "on_crack":
            inside = np.maximum(inside - 1, 0)
        phi = distance_transform_edt(~crack) - inside
        return np.asarray(phi.clip(-self.clip, self.clip), np.float32)


class BoundaryLoss(nn.Module):
    """`L = 1/|V| sum_{i in V} p_i phi_i`, and 0 where V is empty.

    p  probability, the sigmoid of the logit        phi  distance from the contour, below 0 inside cracks
    V  valid pixels of the batch
    """

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        distance: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch; it reads `distance`, not `target`."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        return (z.sigmoid() * distance.to(z.dtype) * v).sum() / v.sum().clamp(min=1)
