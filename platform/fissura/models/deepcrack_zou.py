"""DeepCrack: a SegNet whose scales are fused (Zou et al., IEEE Transactions on Image Processing 2019)."""

from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import (
    VGG16,
    convolutions,
    he_initialise,
    max_pool_placed,
    max_unpool,
    vgg16_stages,
)
from fissura.models.side_outputs import SideOutputSegmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors


class DeepCrackZou(ModelSpec):
    """VGG16's convolutions as encoder and, mirrored, as decoder, which unpools values to where the encoder's
    maxima were; a crack map of both at each of five scales, and the fusion of these.

    `width` is the number of channels at full resolution: 64 in the paper; 16 has a sixteenth of its
    operations. `weights` is `none` or the path of a .safetensors file that a run of the same network kept.

    Readings: a decoder stage ends with the channels of the encoder stage above it, as in the published code,
    since the paper's equal widths do not fit the encoder's maxima; batch normalisation and the fusion by one
    1x1 convolution are the paper's, where the code has no normalisation and two 3x3 convolutions.
    """

    paper: ClassVar[Paper | None] = Paper("Zou et al.", "TIP", 2019)
    kind: Literal["deepcrack_zou"] = "deepcrack_zou"
    width: int = Field(64, ge=1, le=256)

    def build(self) -> "DeepCrackZouNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = DeepCrackZouNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: DeepCrack is trained from random weights, which its paper found "
            "better; set `model.weights` to none, or `model.kind` to backbone_unet"
        )


class DeepCrackZouNetwork(SideOutputSegmenter):
    """The features are the encoder's and the decoder's maps at full resolution and four side maps. The loss
    is the sum of those of the five side maps and of their fusion."""

    def __init__(self, spec: DeepCrackZou) -> None:
        widths = [spec.width * times for times, _ in VGG16]
        above = [widths[0], *widths[:-1]]
        both = [encoded + decoded for encoded, decoded in zip(widths, above, strict=True)]
        to_side_logits = [nn.Conv2d(channels, 1, 1) for channels in both]
        super().__init__(to_side_logits, weights=[1.0] * len(both), align_corners=False)
        self.stride = 2 ** len(VGG16)
        self.encoder = vgg16_stages(spec.width)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                convolutions(width, width, count=count - 1, normalisation="batch"),
                convolutions(width, outputs, count=1, normalisation="batch"),
            )
            for width, outputs, (_, count) in zip(widths, above, VGG16, strict=True)
        )
        he_initialise(self)

    def scales(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The encoder's and the decoder's maps of each scale."""
        # channels last: faster on a CPU for convolutions this narrow, and kept from layer to layer
        maps = image.contiguous(memory_format=torch.channels_last)
        encoded: list[tuple[Tensor, Tensor]] = []
        for stage in self.encoder:
            unpooled = stage(maps)
            maps, places = max_pool_placed(unpooled)
            encoded.append((unpooled, places))
        scales = []
        for stage, (skip, places) in zip(reversed(self.decoder), reversed(encoded), strict=True):
            maps = stage(max_unpool(maps, places))
            scales.append(torch.cat((skip, maps), dim=1))
        return scales[::-1]
