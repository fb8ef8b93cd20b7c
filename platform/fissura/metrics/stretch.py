"""The stretch of a map to 0..1 before it is judged, which one paper's protocol has."""

from typing import Any

import numpy as np
from jaxtyping import Float32


def stretched(probability: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A map whose least value is 0 and whose largest is 1; one of a single value stays as it is.

    Siriborvornratanakul, Advances in Multimedia 2022, section 3.3. It tells where a crack is in an image that
    has one, and finds one in an image that has none: half of such an image lies above the middle.
    """
    low, high = float(probability.min()), float(probability.max())
    if high <= low:
        return probability
    result: Any = (probability - low) / (high - low)
    return np.asarray(result, dtype=np.float32)
