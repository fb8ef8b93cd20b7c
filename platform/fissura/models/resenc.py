"""ResEnc-S: a small nnU-Net with residual encoder (Isensee et al., MICCAI 2024).

R1, R2, ...  stages of residual blocks; each but the first halves the image
D1, D2, ...  decoder levels, D1 at full resolution
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import he_initialise
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.weights import ModelSpec, fill, starting_tensors

WIDEST, SLOPE = 512, 0.01
Count = Annotated[int, Field(ge=1, le=16)]


class ResEnc(ModelSpec):
    """A U-Net with a residual encoder, one convolution a decoder level, and a mask at each decoder level.

    `width` is the number of channels at full resolution, doubled from stage to stage up to 512; `blocks` are
    the numbers of residual blocks of the stages. The default is `S`: width 16 and five stages, small enough
    for two CPU cores at the width 8. nnU-Net's own "M" is `width` 32 with `blocks` 1 3 4 6 6 6 6: thirty
    times as many weights. `weights` is `none` or the path of a .safetensors file that a run of the same
    network kept.

    nnU-Net plans its depth from the data set; here it is `blocks`. Its two class maps under a softmax are one
    map under a sigmoid here, which is the same set of functions.
    """

    paper: ClassVar[Paper | None] = Paper("Isensee et al.", "MICCAI", 2024)
    kind: Literal["resenc"] = "resenc"
    width: int = Field(16, ge=2, le=256)
    blocks: tuple[Count, ...] = Field((1, 2, 2, 2, 2), min_length=3, max_length=8)

    def build(self) -> "ResEncNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = ResEncNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: nnU-Net's residual encoder was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation with a scale and a shift, also of maps of a single pixel, which become 0 before
    the shift: PyTorch's module refuses them, and a small image has them in the deepest stage."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The maps, each normalised by itself."""
        cudnn = torch.backends.cudnn.enabled
        return torch.instance_norm(
            maps, self.weight, self.bias, None, None,
            use_input_stats=True, momentum=0.0, eps=self.eps, cudnn_enabled=cudnn,
        )  # fmt: skip


def _unit(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A padded 3x3 convolution, instance normalisation, a leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        InstanceNorm(outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


class ResEncBlock(nn.Module):
    """Two 3x3 convolutions, the second normalised before the sum with the shortcut; a leaky ReLU after it.

    The shortcut is the mean of 2x2 pixels where the stride is 2, then a 1x1 convolution without a bias and a
    normalisation where the number of channels changes.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = _unit(inputs, outputs, stride=stride)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.normalisation = InstanceNorm(outputs)
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if stride == 2 else []
        if inputs != outputs:
            shortcut += [nn.Conv2d(inputs, outputs, 1, bias=False), InstanceNorm(outputs)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, maps: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs _ _"]:
        """The features of the block."""
        change = self.normalisation(self.second(self.first(maps)))
        return leaky_relu(change + self.shortcut(maps), SLOPE, inplace=True)


def _stage(inputs: int, outputs: int, *, count: int, stride: int) -> nn.Sequential:
    """`count` residual blocks, the first of them with the stride."""
    first = ResEncBlock(inputs, outputs, stride=stride)
    return nn.Sequential(first, *(ResEncBlock(outputs, outputs, stride=1) for _ in range(count - 1)))


class ResEncLevel(nn.Module):
    """Transposed 2x2 convolution of stride 2, the skip concatenated, one convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.joined = _unit(2 * outputs, outputs)

    def forward(
        self, deep: Float[Tensor, "b inputs h w"], skip: Float[Tensor, "b outputs 2*h 2*w"]
    ) -> Float[Tensor, "b outputs 2*h 2*w"]:
        """The features one level up."""
        features: Tensor = self.joined(torch.cat((self.up(deep), skip), dim=1))
        return features


class ResEncNetwork(Segmenter):
    """The features are those of D1.

    Side maps, D2 first, each at its level's size: masks whose losses weigh half as much from level to level,
    the last one's nothing; all weights, including that of the crack logits, sum to 1.
    """

    def __init__(self, spec: ResEnc) -> None:
        super().__init__()
        depth = len(spec.blocks)
        self.stride = 2 ** (depth - 1)
        self.feature_channels = spec.width
        widths = [min(spec.width * 2**stage, WIDEST) for stage in range(depth)]
        self.stem = _unit(3, spec.width)
        self.encoder = nn.ModuleList(
            _stage(inputs, outputs, count=count, stride=stride)
            for inputs, outputs, count, stride in zip(
                (spec.width, *widths[:-1]), widths, spec.blocks, (1, *[2] * (depth - 1)), strict=True
            )
        )
        self.decoder = nn.ModuleList(ResEncLevel(below, width) for below, width in pairwise(widths[::-1]))
        self.to_logits, *sides = (nn.Conv2d(width, 1, 1) for width in widths[:-1])
        self.side_masks = nn.ModuleList(sides)
        shares = [2.0**-level for level in range(depth - 2)]
        self.crack_weight, *rest = (share / sum(shares) for share in (*shares, 0.0))
        self.side_maps = tuple(SideMap("mask", weight) for weight in rest)
        self._initialise()

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """D1."""
        return self._decoded(image)[0]

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits

    def with_side_maps(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Float[Tensor, "b 1 _ _"], ...]]:
        """D1, and the masks of D2, D3 and so on."""
        features, *lower = self._decoded(image)
        return features, tuple(mask(level) for mask, level in zip(self.side_masks, lower, strict=True))

    def _decoded(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """D1, D2 and so on."""
        skips = [self.stem(image)]
        for stage in self.encoder:
            skips.append(stage(skips[-1]))
        current = skips.pop()
        levels = []
        for level in self.decoder:
            current = level(current, skips.pop())
            levels.append(current)
        return levels[::-1]

    def _initialise(self) -> None:
        """He's normal distribution; each residual block begins as its shortcut, as nnU-Net's do."""
        he_initialise(self)
        for block in self.modules():
            if isinstance(block, ResEncBlock):
                nn.init.zeros_(block.normalisation.weight)
