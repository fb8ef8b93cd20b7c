"""DeepCrack: a SegNet whose scales are fused (Zou et al., IEEE Transactions on Image Processing 2019)."""

from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import VGG16, convolutions, he_initialise, vgg16_stages
from fissura.models.side_outputs import SideOutputSegmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors


class DeepCrackZou(ModelSpec):
    """VGG16's convolutions as encoder and, mirrored, as decoder, which puts what it brings up where the
    encoder's maxima were; a crack map of both at each of five scales, and the fusion of these.

    `width` is the number of channels at full resolution: 64 in the paper; 16 has a sixteenth of its
    operations. `weights` is `none` or the path of a .safetensors file that a run of the same network kept.

    Readings: a decoder stage ends with the channels of the encoder's stage above it, as the published code
    has it, since the paper's equal widths do not fit the encoder's maxima; batch normalisation and the
    fusion by one 1x1 convolution are the paper's, where the code has none and two 3x3 ones.
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
        super().__init__(both, weights=[1.0] * len(both), bias=True, align_corners=False)
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
        maps, encoded = image, []
        for stage in self.encoder:
            unpooled = stage(maps)
            maps, places = max_pooled(unpooled)
            encoded.append((unpooled, places))
        scales = []
        for stage, (skip, places) in zip(reversed(self.decoder), reversed(encoded), strict=True):
            maps = stage(max_unpooled(maps, places))
            scales.append(torch.cat((skip, maps), dim=1))
        return scales[::-1]


Places = Int64[Tensor, "b c h w"]


def max_pooled(maps: Float[Tensor, "b c _ _"]) -> tuple[Float[Tensor, "b c h w"], Places]:
    """The largest of each square of four pixels, and which of the four it is: of equals the first."""
    # PyTorch's own pair is not deterministic on a GPU and knows no bfloat16 on a CPU
    largest, places = pixel_unshuffle(maps, 2).unflatten(1, (-1, 4)).max(dim=2)
    return largest, places


def max_unpooled(maps: Float[Tensor, "b c h w"], places: Places) -> Float[Tensor, "b c 2*h 2*w"]:
    """Each value at its place in a square of four pixels, whose others are 0."""
    four = torch.arange(4, device=maps.device).view(4, 1, 1)
    squares = torch.where(places.unsqueeze(2) == four, maps.unsqueeze(2), 0)
    return pixel_shuffle(squares.flatten(1, 2), 2)
