"""Networks with a crack map at each scale and a fusion of them all (after Xie and Tu, HED, ICCV 2015)."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fissura.models.segmenter import Segmenter, SideMap


class SideOutputSegmenter(Segmenter):
    """A convolution gives each scale's side map, the finest first; up-sampled to the image's size, all side
    maps are fused by a 1x1 convolution to the crack logits.

    The features are the finest scale's maps and the side maps of the other scales; the head is the finest
    side convolution and the fusion. So a loss that reads features reads more than a map a scale.

    `to_side_logits` are the side convolutions; the fusion has a bias if they have. `weights` are those of the
    side maps' losses; `align_corners` says how side maps are up-sampled.
    """

    def __init__(
        self, to_side_logits: Sequence[nn.Conv2d], *, weights: Sequence[float], align_corners: bool
    ) -> None:
        super().__init__()
        finest, *coarser = to_side_logits
        self._parts, self._align_corners = (finest.in_channels, *(1 for _ in coarser)), align_corners
        self.feature_channels = sum(self._parts)
        self.side_maps = tuple(SideMap("mask", weight) for weight in weights)
        self.to_side_logits = nn.ModuleList(to_side_logits)
        self.fuse = nn.Conv2d(len(to_side_logits), 1, 1, bias=finest.bias is not None)

    @abstractmethod
    def scales(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """What each side convolution reads, the maps at the image's size first."""

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The maps at the image's size, and the other scales' side maps."""
        return torch.cat(self._parts_of(image), dim=1)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The finest side map, fused with the others."""
        return self._fused(torch.split(features, list(self._parts), dim=1))

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
        finest, *coarser = self.scales(image)
        _, *to_logits = self.to_side_logits
        sides = [convolution(maps) for convolution, maps in zip(to_logits, coarser, strict=True)]
        size, align = image.shape[-2:], self._align_corners
        return finest, *(interpolate(side, size=size, mode="bilinear", align_corners=align) for side in sides)

    def _sides(self, parts: Sequence[Float[Tensor, "b _ h w"]]) -> tuple[Float[Tensor, "b 1 h w"], ...]:
        finest, *coarser = parts
        return self.to_side_logits[0](finest), *coarser

    def _fused(self, parts: Sequence[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b 1 h w"]:
        logits: Tensor = self.fuse(torch.cat(self._sides(parts), dim=1))
        return logits
