"""Random changes of the images that a backbone learns from: flips, quarter turns, contrast, brightness."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from fissura.core.spec import Spec

Probability = Annotated[float, Field(ge=0, le=1)]


class ImageChanges(Spec):
    """Random changes of a training image.

    The flips and the turn (by 0, 90, 180 or 270 degrees) are drawn with these probabilities. Pixels 0..1 are
    scaled around the image's mean by a factor within 1 ± `contrast`, then shifted by up to ± `brightness`.
    """

    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    quarter_turn: Probability = 1.0
    brightness: float = Field(0.2, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, lt=1)

    def draw(self, seed: int) -> "Change":
        """The change that `seed` determines."""
        draws = random.Random(seed)
        return Change(
            columns=draws.random() < self.horizontal_flip,
            rows=draws.random() < self.vertical_flip,
            quarters=draws.randint(0, 3) if draws.random() < self.quarter_turn else 0,
            contrast=1 + self.contrast * draws.uniform(-1, 1),
            brightness=self.brightness * draws.uniform(-1, 1),
        )


@dataclass(frozen=True)
class Change:
    """One change: columns and rows reversed, quarter turns, then contrast and brightness."""

    columns: bool
    rows: bool
    quarters: int
    contrast: float
    brightness: float

    def moved(self, image: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """The image flipped and turned: a view."""
        return np.rot90(image[:: -1 if self.rows else 1, :: -1 if self.columns else 1], self.quarters)


def changed(images: UInt8[np.ndarray, "b s s 3"], changes: Sequence[Change]) -> Float[Tensor, "b 3 s s"]:
    """The images as pixels 0..1, each changed."""
    moved = np.stack([change.moved(image) for image, change in zip(images, changes, strict=True)])
    pixels = torch.from_numpy(moved).permute(0, 3, 1, 2).float() / 255
    contrast, brightness = (
        torch.tensor([getattr(change, name) for change in changes]).view(-1, 1, 1, 1)
        for name in ("contrast", "brightness")
    )
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return ((pixels - mean) * contrast + mean + brightness).clamp(0, 1)
