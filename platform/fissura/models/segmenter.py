"""What every segmentation network of the project is."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Segmenter(nn.Module, ABC):
    """A network that gives each pixel of an image a crack logit.

    `stride` is the number of pixels that both sides of an input must be a multiple of; the engine pads to it.
    `feature_channels` is the number of maps that `features` gives.
    """

    stride: int
    feature_channels: int

    @abstractmethod
    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The last feature map, at the input's size: what a head reads."""

    @abstractmethod
    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits from the feature map."""

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits of normalised RGB images."""
        return self.head(self.features(image))
