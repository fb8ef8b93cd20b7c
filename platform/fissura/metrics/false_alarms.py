"""False alarms: what a model predicts on images that hold no crack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class FalseAlarm:
    """One crack-free image: its predicted pixels, their 8-connected components, its size in valid pixels."""

    pixels: int
    components: int
    area: int


def false_alarm(
    probability: UInt8[np.ndarray, "h w"], valid: UInt8[np.ndarray, "h w"] | None = None, *, level: int
) -> FalseAlarm:
    """The alarms at `level` (0..255) among the valid pixels (not 0) of an image without a crack."""
    predicted = probability >= level
    if valid is not None:
        predicted &= valid != 0
    pixels = int(np.count_nonzero(predicted))
    components = 0
    if pixels:
        from scipy import ndimage

        components = int(ndimage.label(predicted, structure=np.ones((3, 3)))[1])
    return FalseAlarm(pixels, components, probability.size if valid is None else int(np.count_nonzero(valid)))


def summarise(alarms: Sequence[FalseAlarm]) -> dict[str, Any]:
    """Alarms per image and per megapixel (10^6 valid pixels), as JSON types. At least one image."""
    pixels = sum(alarm.pixels for alarm in alarms)
    components = sum(alarm.components for alarm in alarms)
    megapixels = sum(alarm.area for alarm in alarms) / 1e6
    return {
        "images": len(alarms),
        "pixels_per_image": pixels / len(alarms),
        "components_per_image": components / len(alarms),
        "pixels_per_megapixel": pixels / megapixels if megapixels else 0.0,
        "components_per_megapixel": components / megapixels if megapixels else 0.0,
    }
