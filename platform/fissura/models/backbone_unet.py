"""A U-Net on an ImageNet encoder (Isnan et al., CMBN 2026): the same decoder for every encoder."""

from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.models.blocks import UpBlock, he_initialise
from fissura.models.encoders import SOURCES, Encoder, EncoderName, hub_file
from fissura.models.segmenter import Segmenter
from fissura.models.weights import HubFile, ModelSpec, fill, starting_tensors

Channels = Annotated[int, Field(ge=1, le=2048)]


class BackboneUNet(ModelSpec):
    """A U-Net whose encoder was trained on ImageNet; four encoder and four decoder blocks.

    `weights` is `imagenet`, `none` (random), or the path of a .safetensors file: an encoder's as published,
    or a whole network's as a run keeps it. `decoder_channels` are those of the decoder blocks, deepest first.

    Where the paper is silent: batch normalisation in the decoder, a 1x1 convolution as the head, no skip at
    full resolution (only the VGGs have features there), and none at stride 2 for the transformers, which have
    no features there.
    """

    paper: ClassVar[Paper | None] = Paper("Isnan et al.", "CMBN", 2026)
    variant: ClassVar[str | None] = "encoder"
    kind: Literal["backbone_unet"] = "backbone_unet"
    encoder: EncoderName = "resnet34"
    decoder_channels: tuple[Channels, Channels, Channels, Channels] = (256, 128, 64, 32)
    weights: str = Field("imagenet", min_length=1, max_length=4096)

    def hub_file(self) -> HubFile:
        """The encoder's published ImageNet weights."""
        return hub_file(self.encoder)

    def build(self) -> "BackboneUNetNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = BackboneUNetNetwork(self)
        if tensors is None:
            return network
        if any(name.startswith("decoder.") for name in tensors):
            fill(network, tensors, source=self.weights)
        else:
            network.encoder.load(tensors, source=self.weights)
        return network


class BackboneUNetNetwork(Segmenter):
    """Features at strides 2, 4, 8 and 16, decoded by four up-blocks of which the first three take a skip."""

    published_part = "encoder."

    def __init__(self, spec: BackboneUNet) -> None:
        super().__init__()
        self.stride = SOURCES[spec.encoder].multiple
        self.encoder = Encoder(SOURCES[spec.encoder])
        self.feature_channels = spec.decoder_channels[-1]
        *skips, deepest = self.encoder.channels
        inputs = (deepest, *spec.decoder_channels[:-1])
        self.decoder = nn.ModuleList(
            UpBlock(channels, skip, outputs, normalisation="batch")
            for channels, skip, outputs in zip(inputs, (*skips[::-1], 0), spec.decoder_channels, strict=True)
        )
        self.to_logits = nn.Conv2d(self.feature_channels, 1, 1)
        he_initialise(self.decoder)
        he_initialise(self.to_logits)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The output of the last decoder block."""
        current, skips = self.encoder(image)
        for block, skip in zip(self.decoder, (*skips, None), strict=True):
            current = block(current, skip)
        features: Tensor = current
        return features

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits
