"""The interface of every segmentation network."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class SideMap:
    """A map of logits [b 1 h/n w/n], for a whole number n, that a network gives in training alone.

    Its logits predict `target`: the mask, or the mask's boundary, the ring of background pixels around each
    crack. `weight` is the weight of its loss in the sum of all.
    """

    target: Literal["mask", "boundary"]
    weight: float = 1.0


class Segmenter(nn.Module, ABC):
    """A network that gives each pixel of an image a crack logit.

    `stride` is the number of pixels that both sides of an input must be a multiple of; callers pad to it.
    `feature_channels` is the number of maps that `features` gives. A network that is trained on more than the
    crack logits names its `side_maps`, returns them from `with_side_maps`, and weighs the loss of the crack
    logits by `crack_weight`. `published_part` is the prefix of the parameters that published weights fill;
    empty where there are none.
    """

    stride: int
    feature_channels: int
    side_maps: tuple[SideMap, ...] = ()
    crack_weight: float = 1.0
    published_part: str = ""

    @property
    def published(self) -> frozenset[nn.Parameter]:
        """The parameters that published weights fill."""
        part = self.published_part
        named = self.named_parameters() if part else ()
        return frozenset(parameter for name, parameter in named if name.startswith(part))

    @abstractmethod
    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The last feature map, at the input's size: what a head reads."""

    @abstractmethod
    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits from the feature map."""

    def with_side_maps(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Float[Tensor, "b 1 _ _"], ...]]:
        """The features, and the logits of each of `side_maps`; training calls it in place of `features`
        where there are any."""
        return self.features(image), ()

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits of normalised RGB images."""
        return self.head(self.features(image))
