"""CIRL's switch from Phase I to Phase II: one variance map per training image, predicted once and kept.

RUN/variance.safetensors   for each training entry, by its number: sigma^2 / (1 + sigma^2), float16 [h w]
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fissura.core.errors import DataError
from fissura.core.files import replacing
from fissura.data.cache import PreparedData
from fissura.losses import ambiguous_region
from fissura.segmentation.inference import probability_map
from fissura.segmentation.objective import AmbiguityObjective, VarianceView
from fissura.segmentation.recipe import Recipe

VARIANCE = "variance.safetensors"


def variance_maps(
    objective: AmbiguityObjective, *, data: PreparedData, recipe: Recipe, device: torch.device
) -> dict[str, Float16[np.ndarray, "h w"]]:
    """Predicts the variance map of each training image, by its index."""
    view = VarianceView(objective).eval()
    return {
        str(index): probability_map(
            view,
            np.array(data.image(index)),
            inference=recipe.inference,
            normalise=recipe.data.normalise,
            device=device,
        ).astype(np.float16)
        for index in data.indices("train")
    }


def write_variance(maps: Mapping[str, Float16[np.ndarray, "h w"]], path: Path) -> None:
    """Keeps the variance maps.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as scratch:
        scratch.write_bytes(save(dict(maps)))


def ambiguous_regions(
    path: Path, *, data: PreparedData, gamma: float
) -> Mapping[int, UInt8[np.ndarray, "h w"]]:
    """The ambiguous region (Eq. 8) of each training image, by its index, from the kept variance maps.

    Raises:
        DataError: the file is missing, torn, or of other data.
    """
    try:
        maps = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not readable as safetensors ({error}); train the run again") from None
    regions = {}
    for index in data.indices("train"):
        mask = data.mask(index)
        share = maps.get(str(index))
        if share is None or share.shape != mask.shape:
            raise DataError(f"{path}: holds no variance of training image {index}; train the run again")
        log_variance = torch.logit(torch.from_numpy(share.astype(np.float32)))[None, None]
        target = torch.from_numpy(np.array(mask))[None, None]
        regions[index] = ambiguous_region(log_variance, target, gamma=gamma)[0, 0].numpy()
    return regions
