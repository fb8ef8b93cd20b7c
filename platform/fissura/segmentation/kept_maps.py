"""The maps that a phase leaves to later ones: one a training image and name, predicted once, kept in the run.

RUN/NAME.safetensors   a map [h w] for each training image, by its number
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from fissura.core.errors import DataError
from fissura.core.files import replacing
from fissura.data.cache import PreparedData
from fissura.losses.loss import ImageMaps, Predict
from fissura.models import Segmenter
from fissura.segmentation.inference import probability_map
from fissura.segmentation.recipe import Recipe


def file_of(name: str) -> str:
    """The file of a run that holds the maps `name`."""
    return f"{name}.safetensors"


class OtherHead(Segmenter):
    """A trained network with another head."""

    def __init__(self, model: Segmenter, head: nn.Module) -> None:
        super().__init__()
        self._model, self._head = model, head
        self.stride, self.feature_channels = model.stride, model.feature_channels

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The network's own features."""
        return self._model.features(image)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The other head's logits."""
        logits: Tensor = self._head(features)
        return logits


def prediction(model: Segmenter, *, data: PreparedData, recipe: Recipe, device: torch.device) -> Predict:
    """The function with which a loss runs a trained network on the training images; see `Predict`."""

    def predict(head: nn.Module) -> Iterator[tuple[int, Float32[np.ndarray, "h w"]]]:
        view = OtherHead(model, head).eval()
        for index in data.indices("train"):
            yield (
                index,
                probability_map(
                    view,
                    np.array(data.image(index)),
                    inference=recipe.inference,
                    normalise=recipe.data.normalise,
                    device=device,
                ),
            )

    return predict


def write_maps(maps: ImageMaps, path: Path) -> None:
    """Writes maps to `path`.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as scratch:
        scratch.write_bytes(save({str(index): pixels for index, pixels in maps.items()}))


def read_maps(run: Path, name: str, *, data: PreparedData) -> ImageMaps:
    """The kept maps `name` of each training image.

    Raises:
        DataError: the file is missing, torn, or of other data.
    """
    path = run / file_of(name)
    try:
        kept = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not readable as safetensors ({error}); train the run again") from None
    maps = {}
    for index in data.indices("train"):
        pixels = kept.get(str(index))
        if pixels is None or pixels.shape != data.mask(index).shape:
            raise DataError(f"{path}: holds no {name} of training image {index}; train the run again")
        maps[index] = pixels
    return maps
