"""DeepCrack: side maps of VGG16's stages, fused (Liu et al., Neurocomputing 2019)."""

from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import VGG16, he_initialise, vgg16_stages
from fissura.models.side_outputs import SideOutputSegmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors


class DeepCrackLiu(ModelSpec):
    """VGG16's thirteen convolutions, a crack map of each of its five stages, and the fusion of these.

    `width` is the number of channels at full resolution: 64 in the paper. `weights` is `none` or the path of
    a .safetensors file that a run of the same network kept.

    The guided filter, by which the paper refines the fused map (made binary at 0.31, radius 5), is not built:
    its guide is the finest side map, and what follows a network in evaluation, service and bundle reads one
    map of each image, the crack's, window by window.
    """

    paper: ClassVar[Paper | None] = Paper("Liu et al.", "Neurocomputing", 2019)
    kind: Literal["deepcrack_liu"] = "deepcrack_liu"
    width: int = Field(64, ge=1, le=256)

    def build(self) -> "DeepCrackLiuNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = DeepCrackLiuNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: DeepCrack is trained from random weights; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


class DeepCrackLiuNetwork(SideOutputSegmenter):
    """The features are the first stage's maps and four side maps. The loss is that of the fusion plus those
    of the side maps, of which the middle one's weighs most."""

    def __init__(self, spec: DeepCrackLiu) -> None:
        widths = [spec.width * times for times, _ in VGG16]
        to_side_logits = [nn.Conv2d(width, 1, 1, bias=False) for width in widths]
        super().__init__(to_side_logits, weights=(0.5, 0.75, 1.0, 0.75, 0.5), align_corners=True)
        self.stride = 2 ** (len(VGG16) - 1)
        self.encoder = vgg16_stages(spec.width)
        he_initialise(self)

    def scales(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The maps of each stage."""
        finest, *coarser = self.encoder
        # channels last: faster on a CPU for convolutions this narrow, and kept from layer to layer
        scales = [finest(image.contiguous(memory_format=torch.channels_last))]
        for stage in coarser:
            scales.append(stage(max_pool2d(scales[-1], 2)))
        return scales
