"""Augmentation of a training sample: flips and turns of all its maps, changes of its image's pixels."""

import os
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.data.crop import Patch, Pixels

if TYPE_CHECKING:
    import albumentations

Probability = Annotated[float, Field(ge=0, le=1)]

MOVES = ("horizontal_flip", "vertical_flip", "rotate_90")
STRENGTHS: dict[str, tuple[str, ...]] = {
    "noise_sigma": ("gaussian_noise",),
    "blur_kernel": ("blur",),
    "hue_shift": ("hue",),
    "saturation_shift": ("saturation",),
    "brightness_limit": ("brightness_contrast", "brightness"),
    "contrast_limit": ("brightness_contrast", "contrast"),
}
"""The strengths of pixel changes, each with the changes that use it."""


class Augmentation(Spec):
    """Probability and strength of each random change of a training sample, drawn independently.

    `rotate_90` turns by 0, 90, 180 or 270 degrees. Strengths, each drawn uniformly:

    - `noise_sigma`, grey levels of 255: Gaussian noise, drawn for each pixel and channel and truncated to
      whole levels, has a standard deviation of half of it to all of it. 7 was the library's default when the
      paper was written (a variance of 10 to 50) and leaves a thin crack visible; today's, 51 to 112, does
      not;
    - `blur_kernel`, pixels, odd: the side of the largest box of a blur, at least 3;
    - `hue_shift`, units of 2 degrees, and `saturation_shift`, levels of 255: the most that is added or
      subtracted;
    - `brightness_limit`: the largest share of 255 that is added or subtracted; `contrast_limit`: pixels are
      scaled by a factor within 1 ± it.
    """

    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    rotate_90: Probability = 0.0
    brightness_contrast: Probability = 0.0
    gaussian_noise: Probability = 0.0
    blur: Probability = 0.0
    hue: Probability = 0.0
    saturation: Probability = 0.0
    brightness: Probability = 0.0
    contrast: Probability = 0.0
    noise_sigma: float = Field(7.0, gt=0, le=128)
    blur_kernel: int = Field(7, ge=3, le=99)
    hue_shift: int = Field(20, ge=1, le=90)
    saturation_shift: int = Field(30, ge=1, le=255)
    brightness_limit: float = Field(0.2, gt=0, le=1)
    contrast_limit: float = Field(0.2, gt=0, lt=1)

    @field_validator("blur_kernel")
    @classmethod
    def _is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"a box has a pixel in its middle: write {kernel - 1} or {kernel + 1}")
        return kernel

    def named_by(self) -> dict[str, Any]:
        """The plain form without strengths that change nothing: those of changes that are not made, and
        defaults that earlier versions used without naming them. So equal trainings have equal names."""
        plain = self.plain()
        for strength, changes in STRENGTHS.items():
            default = plain[strength] == type(self).model_fields[strength].default
            # earlier versions had another noise
            unchanged = default and strength != "noise_sigma"
            if unchanged or not any(plain[change] for change in changes):
                del plain[strength]
        return plain

    def build(self) -> "Changes":
        """The augmentation at work; each thread needs its own."""
        return Changes(self)


class Changes:
    """Makes the random changes of an `Augmentation`."""

    def __init__(self, spec: Augmentation) -> None:
        self._spec = spec
        self._moves = any(getattr(spec, name) > 0 for name in MOVES)
        self._pixel_changes = _pixel_changes(spec)

    def apply(self, patch: Patch, *, seed: int) -> Patch:
        """A changed patch, as `seed` determines; does not write into the patch's arrays."""
        if self._moves:
            patch = self._moved(patch, seed)
        image = patch.image
        for name, change in self._pixel_changes:
            change.set_random_seed(derive(seed, name) % 2**32)
            image = change(image=image)["image"]
        return patch if image is patch.image else patch._replace(image=image)

    def _moved(self, patch: Patch, seed: int) -> Patch:
        """The patch flipped and turned, as views: albumentations' call is slow for a small patch."""
        draws = random.Random(derive(seed, "moves"))
        columns = draws.random() < self._spec.horizontal_flip
        rows = draws.random() < self._spec.vertical_flip
        quarters = draws.randint(0, 3) if draws.random() < self._spec.rotate_90 else 0

        def move(pixels: Pixels) -> Pixels:
            pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
            if quarters % 2:
                pixels = pixels.swapaxes(0, 1)[::-1]
            return pixels[::-1, ::-1] if quarters >= 2 else pixels

        return patch.map(move)


def _pixel_changes(spec: Augmentation) -> Sequence[tuple[str, "albumentations.ImageOnlyTransform"]]:
    limits = {
        "brightness": {"brightness_limit": spec.brightness_limit, "contrast_limit": 0.0},
        "contrast": {"brightness_limit": 0.0, "contrast_limit": spec.contrast_limit},
        "brightness_contrast": {
            "brightness_limit": spec.brightness_limit,
            "contrast_limit": spec.contrast_limit,
        },
    }
    shifts = {
        "hue": {"hue_shift_limit": spec.hue_shift, "sat_shift_limit": 0.0},
        "saturation": {"hue_shift_limit": 0.0, "sat_shift_limit": spec.saturation_shift},
    }
    probabilities = {
        name: getattr(spec, name)
        for name in (
            "brightness_contrast",
            "gaussian_noise",
            "blur",
            "hue",
            "saturation",
            "brightness",
            "contrast",
        )
        if getattr(spec, name) > 0
    }
    if not probabilities:
        return []
    # else albumentations asks a server for its newest version at import
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    def transform(name: str, probability: float) -> "albumentations.ImageOnlyTransform":
        # every parameter is given: a library default would be an unrecorded setting
        if name == "gaussian_noise":
            deviation = (spec.noise_sigma / 2 / 255, spec.noise_sigma / 255)
            return albumentations.GaussNoise(
                std_range=deviation,
                mean_range=(0.0, 0.0),
                per_channel=True,
                noise_scale_factor=1,
                p=probability,
            )
        if name == "blur":
            return albumentations.Blur(blur_limit=(3, spec.blur_kernel), p=probability)
        if name in shifts:
            return albumentations.HueSaturationValue(**shifts[name], val_shift_limit=0.0, p=probability)
        return albumentations.RandomBrightnessContrast(
            **limits[name], brightness_by_max=True, ensure_safe_range=False, p=probability
        )

    return [(name, transform(name, probability)) for name, probability in probabilities.items()]
