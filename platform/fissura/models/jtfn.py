"""JTFN: joint topology-preserving and feature-refinement network (Cheng et al., ICCV 2021).

E    an encoder level's maps           s, t   a decoder level's maps of the crack mask and of its boundary
y    the mask that the previous step predicted, a probability; 0 everywhere before the first step
GAU  gated attention unit              FIM    feature interactive module
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import he_initialise, resized
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.weights import ModelSpec, fill, starting_tensors

LEVELS, WIDEST = 5, 512
Blocks = Literal["plain", "residual"]


class JTFN(ModelSpec):
    """Two decoders that exchange features, of the crack mask and of its boundary, run `steps` times: the
    mask of a step gates the encoder's features in the next. All steps share all weights.

    `width` is the number of channels at full resolution, doubled by each of the four pooling steps up to 512.
    Published are `base64`, of 64 channels and `plain` blocks, with 3 steps, and `resbase32`, of 32 and
    `residual` ones, with 2 steps. `weights` is `none` or the path of a .safetensors file that a run of the
    same network kept.

    Readings: y of the first step is 0 (the paper's listing has 1); the gradient passes through y; y is
    resized without alignment of corners, side maps with it; the extra 1x1 convolution of the boundary's
    features is in the second decoder level, as in the published code.
    """

    paper: ClassVar[Paper | None] = Paper("Cheng et al.", "ICCV", 2021)
    kind: Literal["jtfn"] = "jtfn"
    width: int = Field(64, ge=2, le=256)
    blocks: Blocks = "plain"
    steps: int = Field(3, ge=1, le=8)

    def build(self) -> "JTFNNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = JTFNNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: JTFN was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


def _unit(inputs: int, outputs: int, size: int, *, dilation: int = 1) -> nn.Sequential:
    """A padded convolution, batch normalisation, a ReLU."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """A transposed 2x2 convolution of stride 2, batch normalisation, a ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, stride=2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ResidualPair(nn.Module):
    """Two 3x3 convolutions; the first one's features are added to the second one's output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _unit(inputs, outputs, 3)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.normalisation = nn.BatchNorm2d(outputs)

    def forward(self, maps: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs h w"]:
        """The features of the level."""
        first = self.first(maps)
        return relu(self.normalisation(first + self.second(first)))


def _encoder_level(inputs: int, outputs: int, *, blocks: Blocks) -> nn.Module:
    if blocks == "residual":
        return ResidualPair(inputs, outputs)
    return nn.Sequential(_unit(inputs, outputs, 3), _unit(outputs, outputs, 3))


class GatedAttention(nn.Module):
    """GAU: `M x + (1 - M) G(x y)` with `M = SA(x (1 - y)) CA(x (1 - y))`, where the mask is not yet found.

    SA  one weight a pixel, from the channels' mean and maximum
    CA  one weight a channel, from the pixels' mean and maximum
    G   a 3x3 convolution of dilation 2
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2))
        self.channel = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 1, bias=False),
            nn.Conv2d(channels // 2, channels, 1, bias=False),
        )
        self.found = _unit(channels, channels, 3, dilation=2)

    def forward(self, x: Float[Tensor, "b c h w"], y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h w"]:
        """The gated features."""
        rest = x * (1 - y)
        pixel_logits = self.spatial(
            torch.cat((rest.mean(1, keepdim=True), rest.amax(1, keepdim=True)), dim=1)
        )
        mean, maximum = rest.mean((2, 3), keepdim=True), rest.amax((2, 3), keepdim=True)
        channel_logits = self.channel(mean) + self.channel(maximum)
        attention = torch.sigmoid(pixel_logits) * torch.sigmoid(channel_logits)
        gated: Tensor = attention * x + (1 - attention) * self.found(x * y)
        return gated


class Interaction(nn.Module):
    """FIM: one level of the two decoders, which exchange their features.

    `a = C(C([s, skip]))`, `t' = C([t, P(a)])`, `s' = a + C([a, P(t')])`, of s and t up-sampled; C is a 3x3
    convolution, P a 1x1 one. `boundary` is applied to t first.
    """

    def __init__(self, inputs: int, outputs: int, *, boundary: nn.Module) -> None:
        super().__init__()
        self.boundary = boundary
        self.up_mask, self.up_boundary = _up(inputs, outputs), _up(inputs, outputs)
        self.with_skip = nn.Sequential(_unit(2 * outputs, outputs, 3), _unit(outputs, outputs, 3))
        self.to_boundary, self.to_mask = _unit(outputs, outputs, 1), _unit(outputs, outputs, 1)
        self.new_boundary, self.new_mask = _unit(2 * outputs, outputs, 3), _unit(2 * outputs, outputs, 3)

    def forward(
        self, s: Float[Tensor, "b _ h w"], t: Float[Tensor, "b _ h w"], skip: Float[Tensor, "b c 2*h 2*w"]
    ) -> tuple[Float[Tensor, "b c 2*h 2*w"], Float[Tensor, "b c 2*h 2*w"]]:
        """s' and t', one level up."""
        a = self.with_skip(torch.cat((self.up_mask(s), skip), dim=1))
        t = self.new_boundary(torch.cat((self.up_boundary(self.boundary(t)), self.to_boundary(a)), dim=1))
        return a + self.new_mask(torch.cat((a, self.to_mask(t)), dim=1)), t


Pairs = list[tuple[Tensor, Tensor]]


class JTFNNetwork(Segmenter):
    """The features are s' of the last step at full resolution.

    Side maps, deepest first, at the image's size: a step's masks and boundaries of all four decoder levels.
    The loss is the mean over a step's masks, plus that over its boundaries, summed over the steps.
    """

    def __init__(self, spec: JTFN) -> None:
        super().__init__()
        self.stride = 2 ** (LEVELS - 1)
        self.feature_channels = spec.width
        self._steps = spec.steps
        widths = [min(spec.width * 2**level, WIDEST) for level in range(LEVELS)]
        self.encoder = nn.ModuleList(
            _encoder_level(inputs, outputs, blocks=spec.blocks)
            for inputs, outputs in zip((3, *widths), widths, strict=False)
        )
        self.gates = nn.ModuleList(GatedAttention(width) for width in widths)
        deepest_first = widths[::-1]
        self.decoder = nn.ModuleList(
            Interaction(below, width, boundary=_unit(below, below, 1) if level == 1 else nn.Identity())
            for level, (below, width) in enumerate(pairwise(deepest_first))
        )
        *lower, top = (nn.Conv2d(width, 1, 3, padding=1, bias=False) for width in deepest_first[1:])
        self.side_masks, self.to_logits = nn.ModuleList(lower), top
        self.side_boundaries = nn.ModuleList(
            nn.Conv2d(width, 1, 3, padding=1, bias=False) for width in deepest_first[1:]
        )
        self.crack_weight = 1 / len(self.decoder)
        mask, boundary = (SideMap("mask", self.crack_weight), SideMap("boundary", self.crack_weight))
        step = (*[mask] * len(lower), *[boundary] * len(self.decoder), mask)
        self.side_maps = (step * spec.steps)[:-1]  # the last mask is the crack logits
        he_initialise(self)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """s' of the last step at full resolution."""
        for pairs, _ in self._decoded(image):
            features = pairs[-1][0]
        return features

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 3x3 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits

    def with_side_maps(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Float[Tensor, "b 1 h w"], ...]]:
        """The features, and the side maps step by step: lower masks, boundaries, and the full-sized mask of
        each step but the last."""
        maps: list[Tensor] = []
        for pairs, logits in self._decoded(image):
            features = pairs[-1][0]
            maps += [to_mask(s) for to_mask, (s, _) in zip(self.side_masks, pairs, strict=False)]
            maps += [to_map(t) for to_map, (_, t) in zip(self.side_boundaries, pairs, strict=True)]
            maps += logits
        size = image.shape[-2:]
        return features, tuple(
            interpolate(side, size=size, mode="bilinear", align_corners=True) for side in maps
        )

    def _decoded(self, image: Float[Tensor, "b 3 h w"]) -> Iterator[tuple[Pairs, list[Tensor]]]:
        """Each step's s' and t' of each decoder level, deepest first, and, except for the last step, its
        crack logits."""
        # channels last: faster on a CPU for convolutions this narrow, and kept from layer to layer
        top, *lower = self.encoder
        levels = [top(image.contiguous(memory_format=torch.channels_last))]
        for block in lower:
            levels.append(block(max_pool2d(levels[-1], 2)))
        y = torch.zeros_like(image[:, :1])
        for following in reversed(range(self._steps)):
            gated = [gate(x, resized(y, like=x)) for gate, x in zip(self.gates, levels, strict=True)]
            s = t = gated.pop()
            pairs: Pairs = []
            for interaction in self.decoder:
                s, t = interaction(s, t, gated.pop())
                pairs.append((s, t))
            logits = [self.head(s)] if following else []
            yield pairs, logits
            if following:
                y = torch.sigmoid(logits[0])
