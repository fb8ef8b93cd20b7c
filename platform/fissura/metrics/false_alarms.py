"""False alarms: what a model predicts on images that hold no crack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

NO_CRACK = "no crack in these images: false alarms only"
"""What a table says of images that hold no crack: precision, recall and F1 are 0/0 there."""

Values = Float64[np.ndarray, "..."]


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


def per_image(amount: Values, images: Values) -> Values:
    """`amount` an image, over any leading axes; nan where there is none."""
    rate: Values = np.divide(amount, images, out=np.full(np.shape(amount), np.nan), where=images > 0)
    return rate


def per_megapixel(amount: Values, area: Values) -> Values:
    """`amount` per 10^6 of the pixels `area`, over any leading axes; nan where there are none."""
    return 1e6 * per_image(amount, area)


def summarise(alarms: Sequence[FalseAlarm]) -> dict[str, Any]:
    """Alarms per image and per megapixel (10^6 valid pixels), as JSON types. At least one image."""
    images = np.array(float(len(alarms)))
    area = np.array(float(sum(alarm.area for alarm in alarms)))
    amounts = {
        name: np.array(float(sum(getattr(alarm, name) for alarm in alarms)))
        for name in ("pixels", "components")
    }
    rates = {f"{name}_per_image": per_image(amount, images) for name, amount in amounts.items()}
    rates |= {f"{name}_per_megapixel": per_megapixel(amount, area) for name, amount in amounts.items()}
    # images without a valid pixel have no room for an alarm
    return {"images": len(alarms), **{name: float(np.nan_to_num(rate)) for name, rate in rates.items()}}
