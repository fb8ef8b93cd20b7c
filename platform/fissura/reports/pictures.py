"""Pictures of a prediction: found cracks, false alarms and missed cracks."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fissura.metrics import level_of

# Okabe and Ito's palette ("Color universal design", 2008): told apart with every common colour blindness.
RIGHT = (0, 158, 115)
WRONG = (213, 94, 0)
MISSED = (240, 228, 66)

MAX_PIXELS = 100_000_000

Load = Callable[[str, str], tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]
"""(data set, image name) -> (RGB image, mask of 0 and 1), both at native size."""


def read_prediction(path: Path) -> UInt8[np.ndarray, "h w"]:
    """An 8-bit probability map (value / 255 = probability).

    Raises:
        OSError: if it is missing, torn or too large.
        ValueError: if it is not an 8-bit grey image.
    """
    with Image.open(path, formats=["PNG"]) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{path}: {file.width} x {file.height} pixels are more than a picture may have")
        if file.mode != "L":
            raise ValueError(f"{path}: a probability map is 8-bit grey, not {file.mode}")
        return np.asarray(file)


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "h w"],
    prediction: UInt8[np.ndarray, "h w"],
    *,
    threshold: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image in faded grey, with the pixels that are RIGHT, WRONG and MISSED at `threshold` (0..1)."""
    grey = np.asarray(Image.fromarray(image).convert("L"))
    picture = np.repeat((grey // 2 + 110).astype(np.uint8)[..., None], 3, axis=2)
    predicted, labelled = prediction >= level_of(threshold), mask > 0
    picture[predicted & labelled] = RIGHT
    picture[predicted & ~labelled] = WRONG
    picture[~predicted & labelled] = MISSED
    return picture


def data_url(picture: UInt8[np.ndarray, "h w *c"], *, kind: Literal["jpeg", "png"], width: int) -> str:
    """The picture, at most `width` pixels wide, as a `data:` address."""
    image = Image.fromarray(picture)
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    if kind == "jpeg":
        image.save(buffer, "JPEG", quality=82, subsampling=0)
    else:
        image.save(buffer, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
