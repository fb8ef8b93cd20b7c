"""A recipe's settings of the path from prepared images to batches."""

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from fissura.core.spec import Spec
from fissura.data.augmentation import Augmentation
from fissura.data.crop import AnyCrop, CrackPatches, Patch, RandomCrop, WholeImage, pad
from fissura.data.resize import AnyResize, Fixed

__all__ = [
    "Augmentation",
    "CrackPatches",
    "Patch",
    "Pipeline",
    "RandomCrop",
    "WholeImage",
    "pad",
]


class Pipeline(Spec):
    """How images become batches: working size, crop, augmentation, batch size, pixel scale.

    `batch_size` is the whole batch of an optimizer step: N data-parallel workers take an N-th each.
    """

    resize: AnyResize = Fixed()
    crop: AnyCrop = WholeImage()
    augmentation: Augmentation = Augmentation()
    batch_size: int = Field(4, ge=1, le=4096)
    normalisation: Literal["imagenet", "unit"] = "imagenet"

    def normalise(self, image: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Network input: [0, 1], or ImageNet's normalisation of that."""
        unit = image.float() / 255
        if self.normalisation == "unit":
            return unit
        mean = torch.tensor((0.485, 0.456, 0.406), device=image.device).view(3, 1, 1)
        deviation = torch.tensor((0.229, 0.224, 0.225), device=image.device).view(3, 1, 1)
        return (unit - mean) / deviation
