"""Float arrays as int8 with a step a column."""

from typing import Literal

import numpy as np
from jaxtyping import Float

Bits = Literal[32, 8]
Stored = dict[str, np.ndarray]


def stored(
    name: str, array: Float[np.ndarray, "n m"], *, bits: Bits
) -> tuple[Stored, Float[np.ndarray, "n m"]]:
    """The arrays that store `array` in a file, and the values (float64) that they represent.

    32 bits: float32. 8 bits: whole numbers from -127 to 127, times a step for each column, `<name>_step`.
    """
    if bits == 32:
        single = array.astype(np.float32)
        return {name: single}, single.astype(np.float64)
    step = (np.abs(array).max(axis=0) / 127).astype(np.float32)
    step[step == 0] = 1
    whole = np.rint(array / step).clip(-127, 127).astype(np.int8)
    return {name: whole, f"{name}_step": step}, (whole * step).astype(np.float64)
