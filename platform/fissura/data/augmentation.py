"""Random changes of a training sample: flips and turns of all its maps, changes of its image's pixels."""

import os
import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.data.crop import Patch, Pixels

if TYPE_CHECKING:
    import albumentations

Probability = Annotated[float, Field(ge=0, le=1)]

MOVES = ("horizontal_flip", "vertical_flip", "rotate_90")


class Augmentation(Spec):
    """Probability of each random change of a training sample, each drawn for itself, with albumentations'
    limits. `rotate_90` turns by 0, 90, 180 or 270 degrees."""

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

    def build(self) -> "Changes":
        """What makes the changes; one for each thread."""
        return Changes(self)


class Changes:
    """Makes the random changes of an `Augmentation`."""

    def __init__(self, spec: Augmentation) -> None:
        self._spec = spec
        self._moves = any(getattr(spec, name) > 0 for name in MOVES)
        self._pixel_changes = _pixel_changes(spec)

    def apply(self, patch: Patch, *, seed: int) -> Patch:
        """The patch, changed as `seed` says; the patch's own arrays are not written into."""
        if self._moves:
            patch = self._moved(patch, seed)
        image = patch.image
        for name, change in self._pixel_changes:
            change.set_random_seed(derive(seed, name) % 2**32)
            image = change(image=image)["image"]
        return patch if image is patch.image else patch._replace(image=image)

    def _moved(self, patch: Patch, seed: int) -> Patch:
        """The patch, flipped and turned: views, without what albumentations' call costs a small patch."""
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
    names = [name for name in type(spec).model_fields if name not in MOVES]
    probabilities = {name: getattr(spec, name) for name in names if getattr(spec, name) > 0}
    if not probabilities:
        return []
    # albumentations asks a server for its newest version at import, unless this is set
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    kinds = {
        "brightness_contrast": albumentations.RandomBrightnessContrast,
        "gaussian_noise": albumentations.GaussNoise,
        "blur": albumentations.Blur,
        "hue": partial(albumentations.HueSaturationValue, sat_shift_limit=0, val_shift_limit=0),
        "saturation": partial(albumentations.HueSaturationValue, hue_shift_limit=0, val_shift_limit=0),
        "brightness": partial(albumentations.RandomBrightnessContrast, contrast_limit=0),
        "contrast": partial(albumentations.RandomBrightnessContrast, brightness_limit=0),
    }
    return [(name, kinds[name](p=probability)) for name, probability in probabilities.items()]
