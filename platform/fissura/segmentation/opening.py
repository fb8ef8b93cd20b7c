"""Removes small cracks from a map, compiled."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32

from fissura.segmentation.small_cracks import open_levels, without_small_cracks


def opened(probability: Float32[np.ndarray, "h w"], pixels: int) -> Float32[np.ndarray, "h w"]:
    """The map without the cracks of fewer than `pixels` pixels, at any threshold; itself if `pixels` < 2."""
    if pixels < 2:
        return probability
    return without_small_cracks(probability, pixels, opening=_compiled())


@cache
def _compiled() -> Callable[[Any, Any, Any, int], None]:
    from numba import njit  # slow to import

    compiled: Callable[[Any, Any, Any, int], None] = njit(nogil=True, cache=True)(open_levels)
    return compiled
