"""Grey dilation by disks and squares: the largest value within reach of each pixel, exact, at any size."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8


def disk(distance: float) -> list[int]:
    """The disk of pixels at most `distance` away (Euclidean), as half-widths of its rows 0, 1, 2, ..."""
    squares = np.arange(int(distance) + 1, dtype=np.float64) ** 2
    within = np.sqrt(squares[:, None] + squares) <= distance
    return [int(width) - 1 for width in within.sum(axis=1)]


def square(distance: int) -> list[int]:
    """The square of 2 `distance` + 1 pixels a side, as half-widths of its rows 0, 1, 2, ..."""
    return [distance] * (distance + 1)


def dilate(values: UInt8[np.ndarray, "h w"], half_widths: Sequence[int]) -> UInt8[np.ndarray, "h w"]:
    """The largest of `values` under a shape centred on each pixel; beyond the border all is 0.

    `half_widths[dy]` is how far the shape reaches sideways in its rows +dy and -dy; it never grows with dy.

    The horizontal maximum of one row of the shape grows out of that of the next narrower one, so a disk of
    radius D costs some 4 D array operations. The image's rows lie end to end in one array, each followed by
    zeros as wide as the shape reaches: a shift sideways is then a shift of the whole array, and contiguous.
    """
    height, width = values.shape
    reaches = [min(reach, width - 1) for reach in half_widths[:height]]  # more cannot touch the image
    rows, pad = len(reaches) - 1, reaches[0]
    stride = width + pad
    canvas = np.zeros(pad + (height + 2 * rows) * stride + pad, dtype=np.uint8)
    first = pad + rows * stride  # where the image's first pixel lies in the canvas
    size = height * stride
    canvas[first : first + size].reshape(height, stride)[:, :width] = values

    dilated = np.zeros(size, dtype=np.uint8)
    run, reach = canvas, 0  # run[i] is the maximum of canvas[i .. i + 2 reach]
    for dy in range(rows, -1, -1):
        run = _widen(run, reach=reach, target=reaches[dy])
        reach = reaches[dy]
        for shift in {dy, -dy}:
            start = first - reach + shift * stride
            np.maximum(dilated, run[start : start + size], out=dilated)
    return np.ascontiguousarray(dilated.reshape(height, stride)[:, :width])


def _widen(run: UInt8[np.ndarray, " n"], *, reach: int, target: int) -> UInt8[np.ndarray, " m"]:
    """Turns the running maximum of 2 `reach` + 1 values into that of 2 `target` + 1."""
    while reach < target:
        if reach == 0:
            run = np.maximum(np.maximum(run[:-2], run[1:-1]), run[2:])
            reach = 1
        else:
            # Two windows further apart than they are wide would leave a gap.
            step = min(target - reach, reach)
            run = np.maximum(run[: -2 * step], run[2 * step :])
            reach += step
    return run
