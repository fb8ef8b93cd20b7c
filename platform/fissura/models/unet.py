"""The plain U-Net (Ronneberger et al., MICCAI 2015)."""

from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import Normalisation, UpBlock, double_convolution, he_initialise
from fissura.models.segmenter import Segmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors


class UNet(ModelSpec):
    """The U-Net of 2015 with padded convolutions, so that the logits have the input's size.

    `width` is the number of channels at full resolution, doubled by each of the `depth` pooling steps: 64 and
    4 in the paper. The paper has no normalisation (`none`); the default `batch` is what later U-Nets add: it
    trains from random weights in far fewer epochs. `weights` is `none` or the path of a .safetensors file
    that a run of the same network kept.
    """

    paper: ClassVar[Paper | None] = Paper("Ronneberger et al.", "MICCAI", 2015)
    kind: Literal["unet"] = "unet"
    width: int = Field(64, ge=1, le=256)
    depth: int = Field(4, ge=1, le=6)
    normalisation: Normalisation = "batch"

    def build(self) -> "UNetNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = UNetNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: the plain U-Net was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


class UNetNetwork(Segmenter):
    """Double convolutions joined by 2x2 max-pooling downwards and by `UpBlock`s upwards."""

    def __init__(self, spec: UNet) -> None:
        super().__init__()
        self.stride = 2**spec.depth
        self.feature_channels = spec.width
        widths = [spec.width * 2**level for level in range(spec.depth + 1)]
        self.encoder = nn.ModuleList(
            double_convolution(inputs, outputs, normalisation=spec.normalisation)
            for inputs, outputs in zip((3, *widths), widths, strict=False)
        )
        self.decoder = nn.ModuleList(
            UpBlock(2 * width, width, width, normalisation=spec.normalisation) for width in widths[-2::-1]
        )
        self.to_logits = nn.Conv2d(spec.width, 1, 1)
        he_initialise(self)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The output of the last decoder block."""
        top, *lower = self.encoder
        # channels last: a third faster on a CPU for convolutions this narrow, and kept from layer to layer
        levels = [top(image.contiguous(memory_format=torch.channels_last))]
        for convolutions in lower:
            levels.append(convolutions(max_pool2d(levels[-1], 2)))
        current: Tensor = levels.pop()
        for block in self.decoder:
            current = block(current, levels.pop())
        return current

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits
