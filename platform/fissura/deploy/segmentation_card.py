"""How an image becomes a mask, as a bundle's card says it, and the sizes of image that a network takes."""

from typing import Any

from fissura.core.errors import SpecError
from fissura.data.resize import Fixed
from fissura.models import BackboneUNet
from fissura.segmentation.inference import Sliding, Whole
from fissura.segmentation.recipe import Recipe

ONE_SIZE = ("swin_tiny",)
"""Encoders whose attention windows are laid out while they are exported, for one size of image."""


def segmentation_card(recipe: Recipe, *, stride: int, threshold: float) -> dict[str, Any]:
    """What the card of a segmentation says of the recipe: how an image becomes a mask."""
    resize = recipe.data.resize
    whole = recipe.inference.max_pixels if isinstance(recipe.inference, Whole) else 0
    sliding = recipe.inference.tiles if isinstance(recipe.inference, Whole) else recipe.inference
    return {
        "task": "segmentation",
        "usage": "python segment.py FOLDER OUT",
        "recipe": recipe.plain(),
        "classes": ["background", "crack"],
        "threshold": threshold,
        "multiple": stride,
        "smallest_crack": recipe.smallest_crack,
        "resize": [resize.height, resize.width] if isinstance(resize, Fixed) else None,
        # up to how many pixels an image is read whole, and the windows of a larger one
        "inference": {"whole_pixels": whole, **sliding.model_dump(mode="json", exclude={"kind"})},
    }


def working_size(recipe: Recipe) -> tuple[int, int] | None:
    """(height, width) of what the network sees at a time; None where that is an image of any size."""
    if isinstance(recipe.inference, Sliding):
        return recipe.inference.size, recipe.inference.size
    resize = recipe.data.resize
    if not isinstance(resize, Fixed):
        return None
    windows = recipe.inference.windows(height=resize.height, width=resize.width)
    return windows.rows.size, windows.columns.size


def fixed_size(recipe: Recipe, size: tuple[int, int] | None, stride: int) -> tuple[int, int] | None:
    """The one size to export for, of a network that cannot be exported for any."""
    if not (isinstance(recipe.model, BackboneUNet) and recipe.model.encoder in ONE_SIZE):
        return None
    if size is None:
        raise SpecError(
            f"`model.encoder: {recipe.model.encoder}` is exported for one size of image, and the recipe reads"
            " images of any; set `data.resize` to a fixed size or `inference` to sliding, and train again"
        )
    return -(-size[0] // stride) * stride, -(-size[1] // stride) * stride
