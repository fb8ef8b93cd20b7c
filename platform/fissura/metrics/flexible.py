"""A mask made wider: `flexible`."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field

from fissura.metrics.counts import at_or_above
from fissura.metrics.dilation import dilate, square
from fissura.metrics.protocol import Protocol


class Flexible(Protocol):
    """Right and wrong against the mask dilated by 2 `distance` + 1 pixels square, misses against the mask.

    Siriborvornratanakul, Advances in Multimedia 2022. The numerator of recall = TP / (TP + FN) is the true
    positives of the dilated mask, so recall is not a share of the labelled pixels.
    """

    kind: Literal["flexible"] = "flexible"
    swept: ClassVar[bool] = True
    distance: int = Field(2, ge=0, le=1000)

    def right(self, labelled: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """The pixels of the dilated mask."""
        return dilate(labelled.view(np.uint8), square(self.distance)).view(np.bool_)

    def found(
        self,
        probability: UInt8[np.ndarray, "h w"],
        labelled: Bool[np.ndarray, "h w"],
        true_positive: Int64[np.ndarray, "256"],
    ) -> tuple[Int64[np.ndarray, "256"], Int64[np.ndarray, "256"]]:
        """Found is the true positives; missed is the labelled pixels that are not predicted themselves."""
        hit = at_or_above(probability[labelled])
        return true_positive, hit[0] - hit
