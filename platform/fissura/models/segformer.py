"""SegFormer: MiT encoder and a head of 1x1 convolutions (Xie et al., NeurIPS 2021)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.models.blocks import he_initialise, resized
from fissura.models.encoders import MIT, Encoder, MitSize
from fissura.models.segmenter import Segmenter
from fissura.models.weights import HubFile, ModelSpec, fill, starting_tensors

DROPPED = 0.1


class SegFormer(ModelSpec):
    """An encoder of overlapping patches and attention at strides 4, 8, 16 and 32; a head that mixes its four
    levels at stride 4.

    `size` is that of the encoder, MiT-B0 to MiT-B2, and `width` the channels of the head. Published are `b0`
    and `b1` with 256 and `b2` with 768. `weights` is `imagenet` (the encoder's), `none` (random), or the path
    of a .safetensors file: an encoder's as published, or a whole network's as a run keeps it.

    The logits have a quarter of the image's size, which blurs cracks of 1 or 2 pixels: `mit_b0` under
    `backbone_unet` has a decoder of full size.

    Licence: the authors publish their code under the NVIDIA Source Code License, for research or evaluation
    only, and the ImageNet weights of MiT come from there by way of segmentation-models-pytorch's copies,
    whose encoder it covers as well. It may cover whatever is trained from these weights: have it checked
    before commercial use. Nothing of it is part of this project; `none` downloads nothing.
    """

    paper: ClassVar[Paper | None] = Paper("Xie et al.", "NeurIPS", 2021)
    variant: ClassVar[str | None] = "size"
    kind: Literal["segformer"] = "segformer"
    size: MitSize = "b0"
    width: int = Field(256, ge=1, le=2048)
    weights: str = Field("imagenet", min_length=1, max_length=4096)

    def hub_file(self) -> HubFile:
        """The encoder's published ImageNet weights."""
        return MIT[self.size].hub_file(f"mit_{self.size}")

    def build(self) -> "SegFormerNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = SegFormerNetwork(self)
        if tensors is None:
            return network
        if any(name.startswith("encoder.") for name in tensors):
            fill(network, tensors, source=self.weights)
        else:
            network.encoder.load(tensors, source=self.weights)
        return network


class SegFormerNetwork(Segmenter):
    """Section 3.2: each level's maps to one width, up-sampled to stride 4, concatenated, mixed.

    The features are the mixed maps, up-sampled to the image's size.
    """

    published_part = "encoder."

    def __init__(self, spec: SegFormer) -> None:
        super().__init__()
        source = MIT[spec.size]
        self.stride = source.multiple
        self.feature_channels = spec.width
        self.encoder = Encoder(source)
        self.levels = nn.ModuleList(
            nn.Conv2d(channels, spec.width, 1) for channels in reversed(self.encoder.channels)
        )
        self.mixed = nn.Sequential(
            nn.Conv2d(len(self.levels) * spec.width, spec.width, 1, bias=False),
            nn.BatchNorm2d(spec.width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(DROPPED),
        )
        self.to_logits = nn.Conv2d(spec.width, 1, 1)
        he_initialise(self.levels)
        he_initialise(self.mixed)
        nn.init.normal_(self.to_logits.weight, std=0.01)
        nn.init.zeros_(self.to_logits.get_parameter("bias"))

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The mixed maps at the image's size."""
        return resized(self._mixed(image), like=image)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits: head(features(image)), which is linear and so may come before the up-sampling."""
        return resized(self.head(self._mixed(image)), like=image)

    def _mixed(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c _ _"]:
        deepest, above = self.encoder(image)
        maps = [level(features) for level, features in zip(self.levels, (deepest, *above), strict=True)]
        mixed: Tensor = self.mixed(torch.cat([resized(map_, like=maps[-1]) for map_ in maps], dim=1))
        return mixed
