"""The interference set: shadow, stain and low contrast over photographs; labels do not change."""

from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from fissura.core.seeding import derive
from fissura.data.synthetic.nuisances import low_contrast, shadow, stain

Interference = Literal["shadow", "stain", "low_contrast"]

# Open shade gets about a fifth of the light in the sun, and an 8-bit value follows light to the power 1/2.2:
# 0.2^(1/2.2) = 0.48. At strength 1 a shadow leaves 0.35 to 0.6 of the value.
SHADOW = 1.0
# At strength 1 damp and rust remove up to 0.6 of a colour, lime adds a quarter: the surface still shows.
STAIN = 1.0
# At strength 1 a quarter to 0.6 of the contrast is left, as in haze or flat light.
LOW_CONTRAST = 1.0

# A shadow that covers nothing, or everything, has no edge that resembles a crack.
SHADED = (0.1, 0.9)
ATTEMPTS = 32


def disturb(
    image: UInt8[np.ndarray, "h w 3"], *, kind: Interference, seed: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph with a disturbance over it, RGB, 0..255; it depends only on the image, `kind` and
    `seed`.

    shadow: one to three polygons with soft edges over 10 to 90 % of the image. stain: blotches of damp, rust
    or lime over a fifth to two thirds of it. low_contrast: values nearer to their mean, lighter or darker.
    A crack stays visible: shading multiplies, and where values would leave the range, the whole image is
    rescaled rather than clipped.
    """
    rng = np.random.default_rng(derive(seed, "interference", kind))
    colour = image.astype(np.float32) / np.float32(255)
    if kind == "shadow":
        disturbed = _shaded(colour, rng)
    elif kind == "stain":
        disturbed = stain(colour, strength=STAIN, rng=rng)
        disturbed = disturbed / max(1.0, float(disturbed.max()))
    else:
        disturbed = low_contrast(colour, strength=LOW_CONTRAST, rng=rng)
        disturbed = disturbed - min(0.0, float(disturbed.min())) - max(0.0, float(disturbed.max()) - 1)
    return np.asarray(np.clip(255 * disturbed + 0.5, 0, 255), dtype=np.uint8)


def _shaded(colour: Float32[np.ndarray, "h w 3"], rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """The first of several random shadows that covers a fair share, or else the last."""
    light = np.ones_like(colour)
    for _ in range(ATTEMPTS):
        light = shadow(np.ones_like(colour), strength=SHADOW, rng=rng)
        if SHADED[0] <= float((light[..., 0] < 0.8).mean()) <= SHADED[1]:
            break
    return np.asarray(colour * light)
