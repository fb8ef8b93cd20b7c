"""From an image to a crack probability map at the image's own size."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from fissura.core.errors import DataError
from fissura.models import Segmenter
from fissura.records.run_files import RESTORE, check_files, no_numbers
from fissura.segmentation.inference import OnWindows, probability_maps
from fissura.segmentation.opening import opened
from fissura.segmentation.recipe import Recipe
from fissura.training.checkpoint import RECIPE, WEIGHTS, load_weights


@dataclass(frozen=True)
class Predictor:
    """A trained model with all that prediction needs. `on_windows` is called with the progress within an
    image; errors name `run`."""

    recipe: Recipe
    model: Segmenter
    device: torch.device
    on_windows: OnWindows | None = None
    run: Path | None = None

    @classmethod
    def open(cls, run: Path, *, device: torch.device) -> Self:
        """The predictor of a run directory.

        Raises:
            DataError: the directory holds no recipe or no weights, or weights of another network.
        """
        check_files(run, (RECIPE, WEIGHTS))
        recipe = read_recipe(run)
        # the run's weights replace the pretrained ones it started from
        model = recipe.model.model_copy(update={"weights": "none"}).build()
        load_weights(model, run / WEIGHTS)
        return cls(recipe, model.to(device).eval(), device, run=run)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Crack probability of each pixel of an RGB image, times 255, rounded."""
        return to_bytes(self.probability(image))

    def probability(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
        """Crack probability of each pixel of an RGB image, 0..1."""
        return self._maps([image])[0]

    def many(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]], *, on_windows: OnWindows | None = None
    ) -> list[UInt8[np.ndarray, "h w"]]:
        """The map of each image, as of `__call__`, of any sizes; `on_windows` is called as well as the
        predictor's own."""
        return [to_bytes(probability) for probability in self._maps(images, on_windows)]

    def _maps(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]], on_windows: OnWindows | None = None
    ) -> list[Float32[np.ndarray, "h w"]]:
        listeners = [listener for listener in (self.on_windows, on_windows) if listener is not None]

        def tell(done: int, total: int, height: int, width: int) -> None:
            for listener in listeners:
                listener(done, total, height, width)

        maps = predict_all(self.model, images, recipe=self.recipe, device=self.device, on_windows=tell)
        # one pass: the sum is not finite where a pixel is not
        if not all(math.isfinite(probability.sum()) for probability in maps):
            raise no_numbers(self.run)
        return maps


def read_recipe(run: Path) -> Recipe:
    """The recipe of a run directory.

    Raises:
        DataError: there is none.
        SpecError: this version cannot read it.
    """
    path = run / RECIPE
    if not path.is_file():
        raise DataError(
            f"{run}: not a run directory, it holds no recipe.json; name a folder below a study's runs/"
        )
    return Recipe.load_file(path, remedy=RESTORE)


def predict(
    model: Segmenter, image: UInt8[np.ndarray, "h w 3"], *, recipe: Recipe, device: torch.device
) -> UInt8[np.ndarray, "h w"]:
    """Crack probability of each pixel, times 255, rounded; see `predict_all`."""
    return to_bytes(predict_all(model, [image], recipe=recipe, device=device)[0])


def predict_all(
    model: Segmenter,
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    *,
    recipe: Recipe,
    device: torch.device,
    on_windows: OnWindows | None = None,
) -> list[Float32[np.ndarray, "h w"]]:
    """Crack probability of each pixel of each image, 0..1.

    The recipe's inference reads the image at the working size; small cracks are removed from the map, which
    is then resized (bilinear) to the image's size.
    """
    working = [recipe.data.resize.image(image) for image in images]
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(working):
        by_shape[image.shape].append(index)
    results: list[Float32[np.ndarray, "h w"]] = [np.empty((0, 0), np.float32)] * len(images)
    for indices in by_shape.values():
        maps = probability_maps(
            model,
            [working[index] for index in indices],
            inference=recipe.inference,
            normalise=recipe.data.normalise,
            device=device,
            on_windows=on_windows,
        )
        for index, probability in zip(indices, maps, strict=True):
            kept = opened(probability, recipe.smallest_crack)
            results[index] = _at_size(kept, *images[index].shape[:2])
    return results


def _at_size(
    probability: Float32[np.ndarray, "h w"], height: int, width: int
) -> Float32[np.ndarray, "height width"]:
    import cv2

    if probability.shape == (height, width):
        return probability
    resized = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32)


def to_bytes(probability: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """A map as it is scored and kept: probability times 255, rounded."""
    return np.asarray(np.rint(probability * 255), dtype=np.uint8)
