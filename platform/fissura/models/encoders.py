"""ImageNet encoders cut for a U-Net, with feature maps at strides 2, 4, 8 and 16; and the MiT encoders of
SegFormer, at strides 4, 8, 16 and 32."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from fissura.models.weights import HubFile, fill

EncoderName = Literal[
    "xception",
    "efficientnet_b0",
    "vgg16",
    "vgg19",
    "resnet34",
    "densenet121",
    "resnet50",
    "mobilenet_v2",
    "inception_v3",
    "mit_b0",
    "swin_tiny",
]


@dataclass(frozen=True)
class EncoderSource:
    """Where an encoder comes from and which parts of it are left out.

    `library_name` is its name in segmentation-models-pytorch (timm where the repository is timm's),
    `classifier` the prefix of the published names after the last feature map, `depth` how many times the
    library's network halves the image, `deeper` the modules after that, `multiple` the pixels that an image's
    sides must be a multiple of. `licence` is the one that those who trained the weights give: torchvision,
    Cadene (Xception), EfficientNet-PyTorch, SegFormer's and Swin's authors; timm names Inception's.
    """

    library_name: str
    repository: str
    revision: str
    licence: str
    classifier: str
    deeper: tuple[str, ...] = ()
    depth: int = 4
    multiple: int = 16

    def hub_file(self, name: str) -> HubFile:
        """The published weights, called `name`."""
        return HubFile(name, self.repository, self.revision, self.licence)


INCEPTION = "timm/inception_v3.tv_in1k"

# The revisions are those that segmentation-models-pytorch pins; timm pins none.
SOURCES: Mapping[EncoderName, EncoderSource] = {
    "xception": EncoderSource(
        library_name="xception",
        repository="smp-hub/xception.imagenet",
        revision="01cfaf27c11353b1f0c578e7e26d2c000ea91049",
        licence="BSD-3-Clause",
        classifier="fc.",
        deeper=("block12", "conv3", "bn3", "conv4", "bn4"),
    ),
    "efficientnet_b0": EncoderSource(
        library_name="efficientnet-b0",
        repository="smp-hub/efficientnet-b0.imagenet",
        revision="1bbe7ecc1d5ea1d2058de1a2db063b8701aff314",
        licence="Apache-2.0",
        classifier="_fc.",
        deeper=(*(f"_blocks.{index}" for index in range(9, 16)), "_conv_head", "_bn1"),
    ),
    "vgg16": EncoderSource(
        library_name="vgg16",
        repository="smp-hub/vgg16.imagenet",
        revision="49d74b799006ee252b86e25acd6f1fd8ac9a99c1",
        licence="BSD-3-Clause",
        classifier="classifier.",
    ),
    "vgg19": EncoderSource(
        library_name="vgg19",
        repository="smp-hub/vgg19.imagenet",
        revision="2853d00d7bca364dbb98be4d6afa347e5aeec1f6",
        licence="BSD-3-Clause",
        classifier="classifier.",
    ),
    "resnet34": EncoderSource(
        library_name="resnet34",
        repository="smp-hub/resnet34.imagenet",
        revision="7a57b34f723329ff020b3f8bc41771163c519d0c",
        licence="BSD-3-Clause",
        classifier="fc.",
        deeper=("layer4",),
    ),
    "densenet121": EncoderSource(
        library_name="densenet121",
        repository="smp-hub/densenet121.imagenet",
        revision="a17c96896a265b61338f66f61d3887b24f61995a",
        licence="BSD-3-Clause",
        classifier="classifier.",
        deeper=(
            "features.transition3.conv",
            "features.transition3.pool",
            "features.denseblock4",
            "features.norm5",
        ),
    ),
    "resnet50": EncoderSource(
        library_name="resnet50",
        repository="smp-hub/resnet50.imagenet",
        revision="00cb74e366966d59cd9a35af57e618af9f88efe9",
        licence="BSD-3-Clause",
        classifier="fc.",
        deeper=("layer4",),
    ),
    "mobilenet_v2": EncoderSource(
        library_name="mobilenet_v2",
        repository="smp-hub/mobilenet_v2.imagenet",
        revision="e67aa804e17f7b404b629127eabbd224c4e0690b",
        licence="BSD-3-Clause",
        classifier="classifier.",
        deeper=tuple(f"features.{index}" for index in range(14, 19)),
    ),
    "inception_v3": EncoderSource(
        library_name="inception_v3.tv_in1k",
        repository=INCEPTION,
        revision="main",
        licence="Apache-2.0",
        classifier="fc.",
        deeper=("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    ),
    "mit_b0": EncoderSource(
        library_name="mit_b0",
        repository="smp-hub/mit_b0.imagenet",
        revision="9ce53d104d92d75aabb00aae70677aaab67e7c84",
        licence="NVIDIA, non-commercial",
        classifier="head.",
        deeper=("patch_embed4", "block4", "norm4"),
        multiple=32,  # its attention sees keys at stride 32: the last rows and columns would be left out
    ),
    "swin_tiny": EncoderSource(
        library_name="swin_tiny_patch4_window7_224.ms_in1k",
        repository="timm/swin_tiny_patch4_window7_224.ms_in1k",
        revision="main",
        licence="MIT",
        classifier="head.",
        deeper=("layers.3", "norm"),
    ),
}

MitSize = Literal["b0", "b1", "b2"]
_MIT_B0 = replace(SOURCES["mit_b0"], deeper=(), depth=5)
MIT: Mapping[MitSize, EncoderSource] = {
    "b0": _MIT_B0,
    "b1": replace(
        _MIT_B0,
        library_name="mit_b1",
        repository="smp-hub/mit_b1.imagenet",
        revision="a04bf4f13a549bce677cf79b04852e7510782817",
    ),
    "b2": replace(
        _MIT_B0,
        library_name="mit_b2",
        repository="smp-hub/mit_b2.imagenet",
        revision="868ab6f13871dcf8c3d9f90ee4519403475b65ef",
    ),
}
"""SegFormer's encoders, uncut."""


def hub_file(name: EncoderName) -> HubFile:
    """The published ImageNet weights of an encoder."""
    return SOURCES[name].hub_file(name)


class Encoder(nn.Module):
    """An encoder drawn from PyTorch's generator, cut after its last map so that every parameter has a
    gradient.

    `channels` are those of its four feature maps, the last one at stride 2^depth of its source; 0 where the
    encoder has no such map (the transformers begin at stride 4).
    """

    def __init__(self, source: EncoderSource) -> None:
        super().__init__()
        self.source = source
        self.body, self.channels = _whole(source)
        for path in self.source.deeper:
            parent, _, child = path.rpartition(".")
            delattr(self.body.get_submodule(parent), child)

    def forward(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b _ _ _"], list[Float[Tensor, "b _ _ _"] | None]]:
        """The deepest map, and the three above it, deepest first; None where there is none."""
        *shallow, deepest = self.body(image)[-4:]
        skips = [map_ if channels else None for map_, channels in zip(shallow, self.channels, strict=False)]
        return deepest, skips[::-1]

    def load(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Loads published weights, with or without the classifier and the stages after the last map.

        Raises:
            WeightsError: they do not fit; `source` names the file.
        """
        fill(self.body, tensors, source=source, own_name=self._own_name)

    def _own_name(self, published: str) -> str | None:
        deeper = tuple(f"{module}." for module in self.source.deeper)
        if published.startswith((self.source.classifier, "AuxLogits.", *deeper)):
            return None
        if published.endswith((".relative_position_index", ".attn_mask")):  # Swin computes them
            return None
        # torchvision's first DenseNet wrote `denselayer1.norm.1.weight` for `denselayer1.norm1.weight`
        return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", published)


def _whole(source: EncoderSource) -> tuple[Any, tuple[int, ...]]:
    """The uncut network, and the channels of its four last maps."""
    if source.repository.startswith("timm/"):
        from fissura.models.timm_encoders import InceptionV3Encoder, SwinTinyEncoder

        network = InceptionV3Encoder() if source.repository == INCEPTION else SwinTinyEncoder()
        return network, network.channels
    from segmentation_models_pytorch.encoders import get_encoder

    network = get_encoder(source.library_name, depth=source.depth, weights=None)
    if source.library_name == "efficientnet-b0":
        # Block i is dropped with the probability rate x i / number of blocks: fewer blocks must not raise it.
        network._drop_connect_rate *= 9 / 16
    return network, tuple(network.out_channels[-4:])
