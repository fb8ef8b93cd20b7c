"""The skeleton recall loss (Kirchhoff et al., ECCV 2024)."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import binary_dilation
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.losses.label_maps import LabelMapSpec
from fissura.losses.loss import full_precision

SMOOTH = 1e-5


class SkeletonRecall(LabelMapSpec):
    """The skeleton recall loss over the batch. It counts no false alarm, and on cracks at most 5 pixels wide
    it is plain recall, which thickens them: add Dice or cross-entropy (the paper: both, weight 1 each).
    """

    paper: ClassVar[Paper | None] = Paper("Kirchhoff et al.", "ECCV", 2024)
    map_name: ClassVar[str] = "skeleton"
    map_type: ClassVar[type[np.generic]] = np.uint8
    kind: Literal["skeleton_recall"] = "skeleton_recall"

    def build(self) -> "SkeletonRecallLoss":
        """The loss as a module."""
        return SkeletonRecallLoss()

    def of_mask(self, mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """The skeleton of the cracks, dilated twice by a cross of 3 x 3, within the cracks."""
        from skimage.morphology import skeletonize  # slow to import

        crack = mask > 0
        tube = binary_dilation(skeletonize(crack), iterations=2)
        return np.asarray(tube & crack, np.uint8)


class SkeletonRecallLoss(nn.Module):
    """`L = 1 - (sum_i p_i s_i + e) / (sum_i s_i + e)`, sums over valid pixels.

    p  probability, the sigmoid of the logit        s  1 on the skeleton's tube, else 0        e  1e-5
    """

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        skeleton: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch; it reads `skeleton`, not `target`."""
        z = full_precision(logits, valid)
        s = skeleton.to(z.dtype) * valid.to(z.dtype)
        return 1 - ((z.sigmoid() * s).sum() + SMOOTH) / (s.sum() + SMOOTH)
