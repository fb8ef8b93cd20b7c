"""Pixels within a distance: `tolerant`."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field

from fissura.metrics.counts import at_or_above
from fissura.metrics.dilation import dilate, disk
from fissura.metrics.protocol import Protocol


class Tolerant(Protocol):
    """A predicted pixel is right if a labelled one is near; a labelled one is found if a predicted one is.

    Near is at most `distance` pixels away (Euclidean): 2 in König et al., ICIP 2019; 5 in older work.
    """

    kind: Literal["tolerant"] = "tolerant"
    distance: float = Field(2, ge=0, le=1000)

    def right(self, labelled: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """The pixels within `distance` of a labelled one."""
        return dilate(labelled.view(np.uint8), disk(self.distance)).view(np.bool_)

    def found(
        self,
        probability: UInt8[np.ndarray, "h w"],
        labelled: Bool[np.ndarray, "h w"],
        true_positive: Int64[np.ndarray, "256"],
    ) -> tuple[Int64[np.ndarray, "256"], Int64[np.ndarray, "256"]]:
        """A labelled pixel is found at the levels up to the largest value of the map near it."""
        found = at_or_above(dilate(probability, disk(self.distance))[labelled])
        return found, found[0] - found
