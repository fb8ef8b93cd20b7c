"""From JPEG coefficients to pixels: inverse cosine transform, chroma up-sampling, YCbCr to RGB.

Up-sampling and colours are libjpeg's, bit for bit ("fancy" triangle filter, 16-bit fixed point). The
transform is in float32, where libjpeg's is an approximation with integers: a sample can differ by 1, and so a
colour by 3.
"""

import numpy as np

SHARE = 1 << 14  # blocks at a time: memory stays bounded


def _zigzag() -> list[int]:
    """Where each coefficient stands in its 8 x 8 block, row by row, in the order in which a file has them."""
    cells = [(row, column) for row in range(8) for column in range(8)]
    cells.sort(key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else cell[1]))
    return [8 * row + column for row, column in cells]


def inverse_transform(coefficients: np.ndarray, steps: np.ndarray, *, stride: int) -> np.ndarray:
    """Samples of a plane, uint8 [h w], `stride` blocks a row.

    `coefficients` is float32 [blocks * 64] and `steps` the 64 quantisation steps, both in zigzag order.
    """
    frequency, place = np.arange(8)[:, None], np.arange(8)
    basis = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    # row: coefficient; column: sample; dequantisation is a factor of the row
    matrix = np.kron(basis, basis)[_zigzag()] * steps[:, None]
    matrix = matrix.astype(np.float32)
    blocks = coefficients.reshape(-1, 64)
    samples = np.empty(blocks.shape, np.uint8)
    for first in range(0, len(blocks), SHARE):
        share = slice(first, first + SHARE)
        samples[share] = np.clip(np.rint(blocks[share] @ matrix) + 128, 0, 255)
    return samples.reshape(-1, stride, 8, 8).swapaxes(1, 2).reshape(-1, stride * 8)


def upsampled(plane: np.ndarray, vertical: int, horizontal: int) -> np.ndarray:
    """A plane uint8 [h w], each side this many times as long (1..4); libjpeg smooths where that is 2."""
    narrow = plane.shape[1] <= 2  # libjpeg repeats samples there
    if (vertical, horizontal) == (2, 2) and not narrow:
        sums = _triangle(_triangle(plane.astype(np.int16).T).T)
        sums[:, ::2] += 8
        sums[:, 1::2] += 7
        return (sums >> 4).astype(np.uint8)
    if (vertical, horizontal) == (1, 2) and not narrow:
        sums = _triangle(plane.astype(np.int16))
        sums[:, ::2] += 1
        sums[:, 1::2] += 2
        return (sums >> 2).astype(np.uint8)
    if (vertical, horizontal) == (2, 1):
        sums = _triangle(plane.astype(np.int16).T).T
        sums[::2] += 1
        sums[1::2] += 2
        return (sums >> 2).astype(np.uint8)
    return plane.repeat(vertical, axis=0).repeat(horizontal, axis=1)


def _triangle(plane: np.ndarray) -> np.ndarray:
    """Twice as many columns: three times the sample and once its neighbour on that side (an edge: itself)."""
    wide = np.pad(plane, ((0, 0), (1, 1)), mode="edge")
    result = np.empty((plane.shape[0], 2 * plane.shape[1]), plane.dtype)
    result[:, ::2] = 3 * plane + wide[:, :-2]
    result[:, 1::2] = 3 * plane + wide[:, 2:]
    return result


def to_rgb(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    """Y, Cb, Cr, uint8 [h w] each, as RGB uint8 [h w 3] (JFIF; full range)."""
    signed = np.arange(256) - 128
    half, scale = 1 << 15, 1 << 16
    red_of_cr = (round(1.402 * scale) * signed + half >> 16).astype(np.int16)
    blue_of_cb = (round(1.772 * scale) * signed + half >> 16).astype(np.int16)
    green_of_cr = (-round(0.71414 * scale) * signed).astype(np.int32)
    green_of_cb = (-round(0.34414 * scale) * signed + half).astype(np.int32)
    result = np.empty((*luma.shape, 3), np.uint8)
    bright = luma.astype(np.int16)
    result[..., 0] = np.clip(bright + red_of_cr[red], 0, 255)
    result[..., 1] = np.clip(bright + (green_of_cb[blue] + green_of_cr[red] >> 16), 0, 255)
    result[..., 2] = np.clip(bright + blue_of_cb[blue], 0, 255)
    return result
