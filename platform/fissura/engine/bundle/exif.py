"""The one thing that EXIF says about pixels: how the camera was held."""

import numpy as np

ORIENTATION = 0x0112


def orientation_of(block: bytes) -> int:
    """The orientation (1..8) in an EXIF block (a TIFF header and what follows it); 1 where it has none."""
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], "big" if block[:1] == b"M" else "little")

    start = number(4, 4)
    for entry in range(start + 2, min(start + 2 + 12 * number(start, 2), len(block) - 11), 12):
        if number(entry, 2) == ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [h w 3] as they were seen."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
