"""Filters: segmenters with nothing to learn, and their parts.

A filter gives each pixel one number, its response: the larger, the more the pixel looks like part of a dark
crack. The threshold is then chosen on validation images, as for any network.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

from fissura.core.errors import WeightsError
from fissura.models.segmenter import Segmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601: grey of RGB
DARKEST = 1 / 255
REACH = 5  # of a Gaussian's kernel to each side, in standard deviations

Plane = Float[Tensor, "b 1 h w"]


NARROWEST = 0.1  # pixels of deviation: of a narrower Gaussian only the pixel itself is left


def wide_enough(sigma: float) -> float:
    """`sigma`, the standard deviation of a Gaussian in pixels, or 0.

    Raises:
        ValueError: it is so narrow that nothing but the pixel itself is left.
    """
    if 0 < sigma < NARROWEST:
        raise ValueError(f"a Gaussian is at least {NARROWEST} pixels wide, or 0 for none at all; is {sigma}")
    return sigma


class Filter(ModelSpec, ABC):
    """Base of the specs of filters. The grey image is first divided by its mean under a Gaussian of standard
    deviation `background`, in pixels, which evens the light out; 0 leaves the image as it is."""

    learns: ClassVar[bool] = False
    background: Annotated[float, Field(ge=0, le=500), AfterValidator(wide_enough)] = 20.0

    def build(self) -> Segmenter:
        """The filter; no random number is drawn."""
        network, tensors = self.network(), starting_tensors(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    @abstractmethod
    def network(self) -> "FilterNetwork":
        """The filter of these settings."""

    def hub_file(self) -> NoReturn:
        """Refuses: a filter has no weights."""
        raise WeightsError(
            f"`model.weights: imagenet`: {type(self).__name__} has no weights; set `model.weights` to none"
        )


class FilterNetwork(Segmenter):
    """A filter as a network without parameters, on RGB images in [0, 1]. Its one feature is the response."""

    stride, feature_channels = 1, 1

    def __init__(self, spec: Filter) -> None:
        super().__init__()
        self.background = Gaussian(spec.background) if spec.background else None

    @abstractmethod
    def response(self, grey: Plane) -> Plane:
        """The response of the evened grey image."""

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Plane:
        """The response."""
        weights = torch.tensor(LUMINANCE, dtype=image.dtype, device=image.device).view(3, 1, 1)
        grey = (image * weights).sum(1, keepdim=True)
        if self.background is not None:
            grey = grey / self.background(grey).clamp(min=DARKEST)
        return self.response(grey)


class Gaussian(nn.Module):
    """The mean under a Gaussian of standard deviation `sigma` pixels, or its derivatives of the orders
    `down` the rows and `across` the columns; the image's edge is repeated."""

    def __init__(self, sigma: float, *, down: int = 0, across: int = 0) -> None:
        super().__init__()
        # not persistent: the spec determines them
        self.register_buffer("down", _kernel(sigma, down), persistent=False)
        self.register_buffer("across", _kernel(sigma, across), persistent=False)

    def forward(self, maps: Plane) -> Plane:
        """The filtered maps, of the same size."""
        down, across = self.get_buffer("down"), self.get_buffer("across")
        reach = len(down) // 2
        padded = pad(maps, (reach, reach, reach, reach), mode="replicate")
        return conv2d(conv2d(padded, down.view(1, 1, -1, 1)), across.view(1, 1, 1, -1))


def _kernel(sigma: float, order: int) -> Float[Tensor, " n"]:
    """A Gaussian of sum 1 at whole pixels, or its first or second derivative."""
    reach = max(1, round(REACH * sigma))
    x = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 * (x / sigma) ** 2)
    slope = (1, x / sigma**2, (x / sigma**2) ** 2 - 1 / sigma**2)[order]
    return torch.from_numpy((bell / bell.sum() * slope).astype(np.float32))


def local_moments(maps: Plane, window: int) -> tuple[Plane, Plane]:
    """Mean and standard deviation in the square of `window` pixels, an odd number, about each pixel; the
    image's edge is repeated."""
    reach = window // 2
    padded = pad(maps, (reach, reach, reach, reach), mode="replicate")
    # evened pixels are near 1: squared less 1, they keep more digits
    values = torch.cat((padded, (padded - 1).square()), dim=1)
    columns = avg_pool2d(values, (window, 1), stride=1)
    mean, square = avg_pool2d(columns, (1, window), stride=1).chunk(2, dim=1)
    return mean, (square - (mean - 1).square()).clamp(min=0).sqrt()


class Curvature(nn.Module):
    """The eigenvalues of the Hessian at a scale of `sigma` pixels, times sigma squared, which makes scales
    comparable (Lindeberg, International Journal of Computer Vision 1998)."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.scale = sigma**2
        self.parts = nn.ModuleList(Gaussian(sigma, down=down, across=2 - down) for down in (2, 1, 0))

    def forward(self, grey: Plane) -> tuple[Plane, Plane]:
        """The larger and the smaller eigenvalue; across a dark line the larger one is above 0."""
        down, mixed, across = (self.scale * part(grey) for part in self.parts)
        middle, half = (down + across) / 2, (down - across) / 2
        spread = (half.square() + mixed.square()).sqrt()
        return middle + spread, middle - spread


def scales(sigma: float, *, count: int) -> Sequence[float]:
    """`count` scales from `sigma` on, each the root of 2 times the previous one."""
    return [sigma * 2 ** (step / 2) for step in range(count)]
