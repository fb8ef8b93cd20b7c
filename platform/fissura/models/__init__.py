"""Segmentation networks. `AnyModel` is the registry: to add a network, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.models.attention_resunet import AttentionResUNet, AttentionResUNetNetwork
from fissura.models.backbone_unet import BackboneUNet, BackboneUNetNetwork
from fissura.models.crackformer import CrackFormer, CrackFormerNetwork
from fissura.models.deeplab import DeepLabV3, DeepLabV3Network
from fissura.models.dru import DRU, DRUNetwork
from fissura.models.jtfn import JTFN, JTFNNetwork
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.unet import UNet, UNetNetwork
from fissura.models.weights import ModelSpec, check_weights

AnyModel = Annotated[
    AttentionResUNet | BackboneUNet | CrackFormer | DeepLabV3 | DRU | JTFN | UNet,
    Field(discriminator="kind"),
]

__all__ = [
    "DRU",
    "JTFN",
    "AnyModel",
    "AttentionResUNet",
    "AttentionResUNetNetwork",
    "BackboneUNet",
    "BackboneUNetNetwork",
    "CrackFormer",
    "CrackFormerNetwork",
    "DRUNetwork",
    "DeepLabV3",
    "DeepLabV3Network",
    "JTFNNetwork",
    "ModelSpec",
    "Segmenter",
    "SideMap",
    "UNet",
    "UNetNetwork",
    "check_weights",
]
