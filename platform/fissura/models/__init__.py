"""Segmentation networks. `AnyModel` is the registry: to add a network, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.models.attention_resunet import AttentionResUNet, AttentionResUNetNetwork
from fissura.models.backbone_unet import BackboneUNet, BackboneUNetNetwork
from fissura.models.deeplab import DeepLabV3, DeepLabV3Network
from fissura.models.jtfn import JTFN, JTFNNetwork
from fissura.models.local_threshold import Niblack, Sauvola
from fissura.models.ridges import Frangi, Sato
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.unet import UNet, UNetNetwork
from fissura.models.weights import ModelSpec, check_weights

AnyModel = Annotated[
    AttentionResUNet | BackboneUNet | DeepLabV3 | Frangi | JTFN | Niblack | Sato | Sauvola | UNet,
    Field(discriminator="kind"),
]

__all__ = [
    "JTFN",
    "AnyModel",
    "AttentionResUNet",
    "AttentionResUNetNetwork",
    "BackboneUNet",
    "BackboneUNetNetwork",
    "DeepLabV3",
    "DeepLabV3Network",
    "Frangi",
    "JTFNNetwork",
    "ModelSpec",
    "Niblack",
    "Sato",
    "Sauvola",
    "Segmenter",
    "SideMap",
    "UNet",
    "UNetNetwork",
    "check_weights",
]
