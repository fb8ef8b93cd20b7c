"""The files that are scored: probability maps, and masks."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL.PngImagePlugin import PngImageFile

from fissura.core.errors import DataError
from fissura.data.images import read_size
from fissura.data.masks import decode_mask
from fissura.data.whole import require_whole


def read_map(path: Path) -> UInt8[np.ndarray, "h w"]:
    """A probability map in 1/255.

    Raises:
        DataError: one line: the file is no 8-bit grey PNG, or cannot be read.
    """
    read_size(path)  # names what can be wrong with any image file, and bounds its size
    try:
        with path.open("rb") as file, PngImageFile(file) as image:
            require_whole(image, file)
            mode = image.mode
            if mode == "L":
                return np.array(image)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"{path}: a prediction is a whole PNG file ({reason}); write it again") from None
    raise DataError(
        f"{path}: a prediction is an 8-bit grey PNG, value / 255 the probability: this one's mode is {mode}; "
        "write one channel of 8 bits"
    )


def read_mask(path: Path) -> tuple[UInt8[np.ndarray, "h w"], str | None]:
    """The mask of anyone's file (0 background, 1 crack), and what is odd about it, if anything.

    Raises:
        DataError: one line: the file is no mask of 0 and 255 or 0 and 1, and no JPEG of one.
    """
    reading = decode_mask(path)
    if reading.remark is None and not (set(reading.levels) <= {0, 255} or set(reading.levels) <= {0, 1}):
        raise DataError(
            f"{path}: a mask holds 0 and 255, or 0 and 1: this one holds {sorted(reading.levels)}; "
            "write 255 where there is a crack"
        )
    return reading.mask, reading.remark
