"""Segmentation networks. `AnyModel` is the registry: to add a network, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.models.attention_resunet import AttentionResUNet, AttentionResUNetNetwork
from fissura.models.backbone_unet import BackboneUNet, BackboneUNetNetwork
from fissura.models.deeplab import DeepLabV3, DeepLabV3Network
from fissura.models.segmenter import Segmenter
from fissura.models.unet import UNet, UNetNetwork
from fissura.models.weights import ModelSpec, check_weights

AnyModel = Annotated[AttentionResUNet | BackboneUNet | DeepLabV3 | UNet, Field(discriminator="kind")]

__all__ = [
    "AnyModel",
    "AttentionResUNet",
    "AttentionResUNetNetwork",
    "BackboneUNet",
    "BackboneUNetNetwork",
    "DeepLabV3",
    "DeepLabV3Network",
    "ModelSpec",
    "Segmenter",
    "UNet",
    "UNetNetwork",
    "check_weights",
]
