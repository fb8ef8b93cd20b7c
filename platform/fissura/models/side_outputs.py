"""Networks with a crack map at each scale and a fusion of them all (after Xie and Tu, HED, ICCV 2015)."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fissura.models.segmenter import Segmenter, SideMap


class SideOutputSegmenter(Segmenter):
    """A side map of each scale, the finest first, by a 1x1 convolution of the scale's maps; brought up to
    the image's size, all of them are fused by another 1x1 convolution to the crack logits.

    The features are the finest scale's maps, beside which the side maps of the other scales lie; the head is
    the finest side convolution, and the fusion. So what reads features has more than five maps to read.

    `channels` and `weights` are the maps of each scale and what the loss of its side map weighs; `bias` is
    that of these convolutions, `align_corners` how side maps are brought up.
    """

    def __init__(
        self, channels: Sequence[int], *, weights: Sequence[float], bias: bool, align_corners: bool
    ) -> None:
        super().__init__()
        coarser = len(channels) - 1
        self.feature_channels = channels[0] + coarser
        self.side_maps = tuple(SideMap("mask", weight) for weight in weights)
        self._parts, self._align_corners = (channels[0], *[1] * coarser), align_corners
        self.to_sides = nn.ModuleList(nn.Conv2d(maps, 1, 1, bias=bias) for maps in channels)
        self.fusion = nn.Conv2d(len(channels), 1, 1, bias=bias)

    @abstractmethod
    def scales(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """What each side convolution reads, the maps at the image's size first."""

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The maps at the image's size, and the other scales' side maps."""
        return torch.cat(self._parts_of(image), dim=1)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The finest side map, fused with the others."""
        return self._fused(features.split(self._parts, dim=1))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits: head(features(image)), without a copy of the maps at the image's size."""
        return self._fused(self._parts_of(image))

    def with_side_maps(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Float[Tensor, "b 1 h w"], ...]]:
        """The features, and the side maps, all of the image's size."""
        parts = self._parts_of(image)
        return torch.cat(parts, dim=1), self._sides(parts)

    def _parts_of(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ h w"], ...]:
        # convolutions this narrow are faster so on a CPU; the layout goes from layer to layer
        finest, *coarser = self.scales(image.contiguous(memory_format=torch.channels_last))
        return finest, *(
            interpolate(
                to_side(maps), size=image.shape[-2:], mode="bilinear", align_corners=self._align_corners
            )
            for to_side, maps in zip(list(self.to_sides)[1:], coarser, strict=True)
        )

    def _sides(self, parts: Sequence[Float[Tensor, "b _ h w"]]) -> tuple[Float[Tensor, "b 1 h w"], ...]:
        finest, *coarser = parts
        return self.to_sides[0](finest), *coarser

    def _fused(self, parts: Sequence[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b 1 h w"]:
        logits: Tensor = self.fusion(torch.cat(self._sides(parts), dim=1))
        return logits
