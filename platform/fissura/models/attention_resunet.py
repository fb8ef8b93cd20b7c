"""A U-Net of residual blocks with attention gates on its skips (König et al., ICIP 2019)."""

from functools import reduce
from typing import Any, ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import Normalisation, convolutions, he_initialise, resized
from fissura.models.segmenter import Segmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors

Blocks = Literal["residual", "plain"]
SMALL = 0.1  # scale of the weights before a saturating function, relative to a linear layer's
# About the value of both class maps before training. The first steps learn how rare a crack is: they pull the
# maps apart by 4 where 1 pixel in 60 is crack. From 1, the ReLU would cut the crack map to 0 on most pixels.
ALIVE = 4.0


class AttentionResUNet(ModelSpec):
    """Residual blocks on `depth` levels, attention-gated skips, deep supervision, a softmax over two classes.

    `width` is the number of filters of the first level, doubled from level to level: 16 and 4 levels in the
    paper. `weights` is `none` or the path of a .safetensors file that a run of the same network kept.

    `final` is the function between the two last maps and their softmax: `relu` in the paper, by which a pixel
    whose crack map is below 0 has no gradient through it and a probability of at most 1/2; or `linear`, none.

    `blocks`, `gate` and `supervision` each ablate one idea of the paper: `plain` blocks do not add their
    input, without a `gate` a skip is passed on unchanged, and `last` supervises only the last decoder block.

    Where the paper is silent: `side_channels`, the maps that each decoder block sends up for deep
    supervision, are as many as the paper's first level has filters. Any number from two on gives the same set
    of functions, as everything after it up to the two class maps is linear; more give a loss that reads
    `features` more of them. An attention gate has as many inner channels as its level has filters, and one
    coefficient for each pixel. There is no normalisation (`none`); `batch` puts batch normalisation after
    every 3x3 convolution.
    """

    paper: ClassVar[Paper | None] = Paper("König et al.", "ICIP", 2019)
    kind: Literal["attention_resunet"] = "attention_resunet"
    width: int = Field(16, ge=1, le=256)
    depth: int = Field(4, ge=2, le=6)
    side_channels: int = Field(16, ge=2, le=256)
    final: Literal["relu", "linear"] = "relu"
    normalisation: Normalisation = "none"
    blocks: Blocks = "residual"
    gate: Literal["attention", "none"] = "attention"
    supervision: Literal["deep", "last"] = "deep"

    def named_by(self) -> dict[str, Any]:
        """See `ModelSpec.named_by`; without `blocks`, `gate` and `supervision` at the paper's values, which
        earlier runs did not have."""
        ideas = {"blocks": "residual", "gate": "attention", "supervision": "deep"}
        return {name: value for name, value in self.plain().items() if ideas.get(name) != value}

    def build(self) -> "AttentionResUNetNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = AttentionResUNetNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: the attention ResU-Net was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


class ResidualBlock(nn.Module):
    """Section 2.2: a 1x1 convolution to the level's filters, plus four 3x3 convolutions with ReLU of it; only
    the four where `blocks` is plain."""

    def __init__(self, inputs: int, outputs: int, *, blocks: Blocks, normalisation: Normalisation) -> None:
        super().__init__()
        self.blocks = blocks
        self.linear = nn.Conv2d(inputs, outputs, 1)
        self.convolutions = convolutions(outputs, outputs, count=4, normalisation=normalisation)

    def forward(self, features: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs h w"]:
        """The features of the level."""
        linear = self.linear(features)
        output: Tensor = self.convolutions(linear)
        return linear + output if self.blocks == "residual" else output


class AttentionGate(nn.Module):
    """Section 2.3: a = sigmoid(W_v relu(W_x x + W_u u + b_u) + b_v), one coefficient a pixel.

    x is the skip and u the up-sampled features from below, both with `channels` maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.from_skip = nn.Conv2d(channels, channels, 1, bias=False)
        self.from_below = nn.Conv2d(channels, channels, 1)
        self.to_coefficient = nn.Conv2d(channels, 1, 1)

    def forward(
        self, skip: Float[Tensor, "b c h w"], below: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """The skip, each pixel scaled by its coefficient in [0, 1]."""
        coefficient = torch.sigmoid(self.to_coefficient(relu(self.from_skip(skip) + self.from_below(below))))
        gated: Tensor = coefficient * skip
        return gated


class DecoderBlock(nn.Module):
    """Transposed 2x2 convolution of stride 2 and ReLU; a block of its output and the skip, gated or not."""

    def __init__(self, channels: int, spec: AttentionResUNet) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.gate = AttentionGate(channels) if spec.gate == "attention" else None
        self.block = ResidualBlock(
            2 * channels, channels, blocks=spec.blocks, normalisation=spec.normalisation
        )

    def forward(
        self, deep: Float[Tensor, "b _ h w"], skip: Float[Tensor, "b c 2*h 2*w"]
    ) -> Float[Tensor, "b c 2*h 2*w"]:
        """The features one level up."""
        below = relu(self.up(deep))
        passed = skip if self.gate is None else self.gate(skip, below)
        joined: Tensor = self.block(torch.cat((passed, below), dim=1))
        return joined


class AttentionResUNetNetwork(Segmenter):
    """The network of Figure 1. Its features are the maps of all supervised decoder blocks, deepest first."""

    def __init__(self, spec: AttentionResUNet) -> None:
        super().__init__()
        self.stride = 2 ** (spec.depth - 1)
        self.final = spec.final
        widths = [spec.width * 2**level for level in range(spec.depth)]
        self.encoder = nn.ModuleList(
            ResidualBlock(inputs, outputs, blocks=spec.blocks, normalisation=spec.normalisation)
            for inputs, outputs in zip((3, *widths), widths, strict=False)
        )
        decoded = widths[-2::-1]
        self.decoder = nn.ModuleList(DecoderBlock(width, spec) for width in decoded)
        supervised = decoded if spec.supervision == "deep" else decoded[-1:]
        self.sides = nn.ModuleList(nn.Conv2d(width, spec.side_channels, 1) for width in supervised)
        self.feature_channels = spec.side_channels * len(supervised)
        self.to_classes = nn.Conv2d(self.feature_channels, 2, 1)
        self._initialise()

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The maps that the decoder blocks send up, at the input's size."""
        maps = [
            resized(side(output), like=image)
            for side, output in zip(self.sides, self._decoded(image), strict=True)
        ]
        return torch.cat(maps, dim=1)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The logit of the softmax over the two maps (non-crack, crack) that a 1x1 convolution gives."""
        return self._logit(self.to_classes(features))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits: head(features(image)), its linear maps in a cheaper order.

        A 1x1 convolution and the bilinear up-sampling commute, and two 1x1 convolutions are one: each decoder
        block gives its two maps at its own size, and they are up-sampled and added.
        """
        outputs = self._decoded(image)
        shares = self.to_classes.weight.flatten(1).tensor_split(len(outputs), dim=1)
        maps = [
            resized(_composed(share, side, output), like=image)
            for share, side, output in zip(shares, self.sides, outputs, strict=True)
        ]
        bias = self.to_classes.get_parameter("bias")
        return self._logit(reduce(torch.add, maps, bias[:, None, None]))

    def _decoded(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The output of each supervised decoder block, deepest first."""
        # channels last: a quarter faster on a CPU for convolutions this narrow, and kept from layer to layer
        current = image.contiguous(memory_format=torch.channels_last)
        top, *lower = self.encoder
        skips = [top(current)]
        for block in lower:
            skips.append(block(max_pool2d(skips[-1], 2)))
        current = skips.pop()
        outputs = []
        for block in self.decoder:
            current = block(current, skips.pop())
            outputs.append(current)
        return outputs[-len(self.sides) :]

    def _logit(self, maps: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 1 h w"]:
        if self.final == "relu":
            maps = relu(maps)
        return maps[:, 1:] - maps[:, :1]

    def _initialise(self) -> None:
        """He's normal distribution, with half the variance where no ReLU follows.

        The gates begin half open and the two class maps near ALIVE: a saturated sigmoid passes hardly any
        gradient back, and a map that the last ReLU cuts everywhere none.
        """
        he_initialise(self)
        for name, layer in self.named_modules():
            if name.startswith("sides.") or name.endswith(".linear"):
                nn.init.kaiming_normal_(layer.get_parameter("weight"), nonlinearity="linear")
            elif name.endswith(("to_coefficient", "to_classes")):
                weight = layer.get_parameter("weight")
                nn.init.normal_(weight, std=SMALL / weight.shape[1] ** 0.5)
        nn.init.constant_(self.to_classes.get_parameter("bias"), ALIVE)


def _composed(
    share: Float[Tensor, "2 c"], side: nn.Module, output: Float[Tensor, "b _ h w"]
) -> Float[Tensor, "b 2 h w"]:
    """One 1x1 convolution in place of two: `side`, then the one of weights `share`."""
    weight, bias = side.get_parameter("weight"), side.get_parameter("bias")
    return conv2d(output, (share @ weight.flatten(1))[..., None, None], share @ bias)
