"""Segmentation networks. `AnyModel` is the registry: to add a network, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.models.attention_resunet import AttentionResUNet, AttentionResUNetNetwork
from fissura.models.backbone_unet import BackboneUNet, BackboneUNetNetwork
from fissura.models.crackformer import CrackFormer, CrackFormerNetwork
from fissura.models.deepcrack_liu import DeepCrackLiu, DeepCrackLiuNetwork
from fissura.models.deepcrack_zou import DeepCrackZou, DeepCrackZouNetwork
from fissura.models.deeplab import DeepLabV3, DeepLabV3Network
from fissura.models.dru import DRU, DRUNetwork
from fissura.models.hrsegnet import HrSegNet, HrSegNetNetwork
from fissura.models.jtfn import JTFN, JTFNNetwork
from fissura.models.local_threshold import Niblack, Sauvola
from fissura.models.resenc import ResEnc, ResEncNetwork
from fissura.models.ridges import Frangi, Sato
from fissura.models.segformer import SegFormer, SegFormerNetwork
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.unet import UNet, UNetNetwork
from fissura.models.weights import ModelSpec, check_weights

AnyModel = Annotated[
    AttentionResUNet
    | BackboneUNet
    | CrackFormer
    | DeepCrackLiu
    | DeepCrackZou
    | DeepLabV3
    | DRU
    | Frangi
    | HrSegNet
    | JTFN
    | Niblack
    | ResEnc
    | Sato
    | Sauvola
    | SegFormer
    | UNet,
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
    "DeepCrackLiu",
    "DeepCrackLiuNetwork",
    "DeepCrackZou",
    "DeepCrackZouNetwork",
    "DeepLabV3",
    "DeepLabV3Network",
    "Frangi",
    "HrSegNet",
    "HrSegNetNetwork",
    "JTFNNetwork",
    "ModelSpec",
    "Niblack",
    "ResEnc",
    "ResEncNetwork",
    "Sato",
    "Sauvola",
    "SegFormer",
    "SegFormerNetwork",
    "Segmenter",
    "SideMap",
    "UNet",
    "UNetNetwork",
    "check_weights",
]
