"""HrSegNet: a path of high resolution with semantic guidance (Li et al., Automation in Construction 2023)."""

from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import he_initialise, resized
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.weights import ModelSpec, fill, starting_tensors

BLOCKS = 3


class HrSegNet(ModelSpec):
    """A path of `width` maps at a quarter of the image's size, guided in each of three blocks by a semantic
    path of lower and lower resolution.

    Published are B16, B32 and B48, by their `width`. `weights` is `none` or the path of a .safetensors file
    that a run of the same network kept.

    Readings: one map of crack logits, where the published code has two classes; bilinear up-sampling without
    alignment of corners; the guiding maps pass their 1x1 convolution before the up-sampling, which gives
    the same maps for fewer operations.
    """

    paper: ClassVar[Paper | None] = Paper("Li et al.", "Automation in Construction", 2023)
    kind: Literal["hrsegnet"] = "hrsegnet"
    width: int = Field(16, ge=2, le=256)

    def build(self) -> "HrSegNetNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = HrSegNetNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: HrSegNet was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


def _unit(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A padded 3x3 convolution, batch normalisation, a ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _before(channels: int, convolution: nn.Module) -> nn.Sequential:
    """A convolution between two batch normalisations and ReLUs."""
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.ReLU(), convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


class GuidedBlock(nn.Module):
    """Three times `low = C(low)`, `high = C(high) + up(P(low))`, where the first `low` is computed from
    `high`.

    C is a 3x3 convolution, P a 1x1 one. The lower path of block `number`, counted from 1, has the resolution
    divided and the channels multiplied by 2^number.
    """

    def __init__(self, width: int, *, number: int) -> None:
        super().__init__()
        channels = width * 2**number
        entry: list[nn.Module] = [] if number == 1 else [nn.AvgPool2d(3, 2, 1, count_include_pad=False)]
        entry += [_unit(width, channels, stride=2)]
        entry += [_unit(channels, channels, stride=2) for _ in range(number - 2)]
        self.low = nn.ModuleList(
            [nn.Sequential(*entry), _unit(channels, channels), _unit(channels, channels)]
        )
        self.high = nn.ModuleList(_unit(width, width) for _ in self.low)
        self.guides = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in self.low)

    def forward(self, high: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The maps of high resolution, guided."""
        low = high
        for lower, higher, guide in zip(self.low, self.high, self.guides, strict=True):
            low, high = lower(low), higher(high)
            high = high + resized(guide(low), like=high)
        return high


class HrSegNetNetwork(Segmenter):
    """The features are the maps of half the image's size that the last convolution reads, up-sampled.

    Side maps, at the image's size: the masks after the first and the second block.
    """

    side_maps = (SideMap("mask", 0.5),) * (BLOCKS - 1)

    def __init__(self, spec: HrSegNet) -> None:
        super().__init__()
        self.stride = 2 ** (2 + BLOCKS)
        width = self.feature_channels = spec.width
        self.stem = nn.Sequential(_unit(3, width // 2, stride=2), _unit(width // 2, width, stride=2))
        self.blocks = nn.ModuleList(GuidedBlock(width, number=number + 1) for number in range(BLOCKS))
        self.up = _before(width, nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1))
        self.to_logits = nn.Conv2d(width, 1, 1)
        self.to_sides = nn.ModuleList(
            nn.Sequential(_before(width, nn.Conv2d(width, width, 3, padding=1)), nn.Conv2d(width, 1, 1))
            for _ in self.side_maps
        )
        he_initialise(self)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The maps of half the size, up-sampled bilinearly."""
        return resized(self.up(self._after_blocks(image)[-1]), like=image)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits: head(features(image)), which is linear and so may come before the up-sampling."""
        return resized(self.head(self.up(self._after_blocks(image)[-1])), like=image)

    def with_side_maps(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Float[Tensor, "b 1 h w"], ...]]:
        """The features, and the masks after the first and the second block."""
        *earlier, last = self._after_blocks(image)
        sides = [to_side(maps) for to_side, maps in zip(self.to_sides, earlier, strict=True)]
        return resized(self.up(last), like=image), tuple(resized(side, like=image) for side in sides)

    def _after_blocks(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _ _"]]:
        # channels last: faster on a CPU for convolutions this narrow, and kept from layer to layer
        maps = self.stem(image.contiguous(memory_format=torch.channels_last))
        after = []
        for block in self.blocks:
            maps = block(maps)
            after.append(maps)
        return after
