"""From an image to a crack probability map at the image's own size."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from fissura.core.errors import DataError
from fissura.data.pipeline import Pipeline
from fissura.engine.checkpoint import WEIGHTS, load_weights
from fissura.engine.recipe import Recipe
from fissura.models import Segmenter


@dataclass(frozen=True)
class Predictor:
    """A trained model with all that prediction needs; built from a run directory alone."""

    recipe: Recipe
    model: Segmenter
    device: torch.device

    @classmethod
    def open(cls, run: Path, *, device: torch.device) -> Self:
        """The predictor of a run directory.

        Raises:
            DataError: the directory holds no recipe or no weights, or weights of another network.
        """
        recipe = read_recipe(run)
        # its trained weights are the run's own: the pretrained ones it started from are not needed again
        model = recipe.model.model_copy(update={"weights": "none"}).build()
        load_weights(model, run / WEIGHTS)
        return cls(recipe, model.to(device).eval(), device)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Crack probability of each pixel of an RGB image, times 255, rounded."""
        return predict(self.model, image, pipeline=self.recipe.data, device=self.device)


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run directory.

    Raises:
        DataError: there is none.
        SpecError: it is not one of this version's.
    """
    path = run / "recipe.json"
    if not path.is_file():
        raise DataError(
            f"{run}: not a run directory, it holds no recipe.json; name a folder below a study's runs/"
        )
    return Recipe.load_file(path)


@torch.inference_mode()
def predict(
    model: Segmenter, image: UInt8[np.ndarray, "h w 3"], *, pipeline: Pipeline, device: torch.device
) -> UInt8[np.ndarray, "h w"]:
    """Crack probability of each pixel, times 255, rounded.

    The image is brought to the recipe's working size and padded (its edge repeated) to the model's stride;
    the logits are brought back (bilinear) before the sigmoid.
    """
    height, width = image.shape[:2]
    working = pipeline.resize.image(image)
    # a copy, since the image may lie in memory that is read-only, which PyTorch does not take
    pixels = torch.from_numpy(np.array(working, order="C")).to(device).permute(2, 0, 1)[None]
    below, right = (math.ceil(side / model.stride) * model.stride - side for side in working.shape[:2])
    padded = nn.functional.pad(pipeline.normalise(pixels), (0, right, 0, below), mode="replicate")
    logits = model(padded)[..., : working.shape[0], : working.shape[1]].float()
    if working.shape[:2] != (height, width):
        logits = nn.functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    return np.asarray((logits.sigmoid()[0, 0] * 255).round().to(torch.uint8).cpu(), dtype=np.uint8)
