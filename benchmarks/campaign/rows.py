"""The rows and the claims: what is trained, and which rows a paper says are better than which."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BACKBONES = (
    "xception", "efficientnet_b0", "vgg16", "vgg19", "resnet34", "densenet121", "resnet50", "mobilenet_v2",
    "inception_v3",
)  # fmt: skip
SMALL_UNET = {"kind": "unet", "width": 16, "depth": 4, "normalisation": "batch"}
SMALL_JTFN = {"kind": "jtfn", "width": 8, "steps": 2}
LOSSES: Mapping[str, Any] = {
    "dice_bce": {"kind": "dice_bce"},
    "lin_focal": {"kind": "lin_focal"},
    "weighted_bce": {"kind": "weighted_bce"},
    "tversky": {"kind": "tversky"},
    "focal_tversky": {"kind": "focal_tversky"},
    "robust_dice": {"kind": "robust_dice"},
    "poly": {"kind": "poly"},
    "robust_t": {"kind": "robust_t"},
    "cldice": {"kind": "cldice"},
}
# one phase, whose loss is BCE; of CIRL's two the first alone
BASE = {"phases.ambiguity.loss": {"kind": "bce"}, "phases.ambiguity.until": 1.0}
PHASE_ONE = {"phases.ambiguity.until": 1.0}


@dataclass(frozen=True)
class Row:
    """A network and how it is trained: `settings` over the paper's own in the search space `space`, as its
    profile makes them small."""

    name: str
    space: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What `paper` says: the row `better` scores more than the row `worse`."""

    paper: str
    better: str
    worse: str


def _cirl(network: str, model: Mapping[str, Any]) -> tuple[Row, ...]:
    return (
        Row(f"{network}, BCE", "cirl", {"model": model, **BASE}),
        Row(f"{network} + CIRL Phase I", "cirl", {"model": model, **PHASE_ONE}),
        Row(f"{network} + CIRL", "cirl", {"model": model}),
    )


ROWS: tuple[Row, ...] = (
    *(Row(f"U-Net on {name}", "unet_backbones", {"model.encoder": name}) for name in BACKBONES),
    *_cirl("U-Net", SMALL_UNET),
    *_cirl("JTFN", SMALL_JTFN),
    Row(
        "U-Net, BCE without margins",
        "cirl",
        {"model": SMALL_UNET, **BASE, "phases.ambiguity.loss": {"kind": "marginless_bce"}},
    ),
    Row("JTFN as published", "jtfn"),
    Row("attention ResU-Net", "attention_resunet"),
    Row("attention ResU-Net, plain blocks", "attention_resunet", {"model.blocks": "plain"}),
    Row("attention ResU-Net, no gates", "attention_resunet", {"model.gate": "none"}),
    Row("attention ResU-Net, last block supervised", "attention_resunet", {"model.supervision": "last"}),
    Row("DeepLabV3, focal", "deeplab_focal"),
    Row("DeepLabV3, BCE", "deeplab_focal", {"phases.train.loss": {"kind": "bce"}}),
    *(
        Row(f"U-Net, {name}", "cirl", {"model": SMALL_UNET, **BASE, "phases.ambiguity.loss": loss})
        for name, loss in LOSSES.items()
    ),
)

CLAIMS: tuple[Claim, ...] = (
    *(
        Claim("Isnan et al., the ranking of backbones", f"U-Net on {better}", f"U-Net on {worse}")
        for better, worse in (("xception", "mobilenet_v2"), ("xception", "resnet34"), ("xception", "vgg16"))
    ),
    *(
        Claim("Chen et al., CIRL", f"{network} + CIRL", f"{network}{base}")
        for network in ("U-Net", "JTFN")
        for base in (", BCE", " + CIRL Phase I")
    ),
    Claim("Chen et al., margins", "U-Net, BCE without margins", "U-Net, BCE"),
    *(
        Claim("König et al., the network's ideas", "attention ResU-Net", f"attention ResU-Net, {without}")
        for without in ("plain blocks", "no gates", "last block supervised")
    ),
    Claim("Siriborvornratanakul, focal losses", "DeepLabV3, focal", "DeepLabV3, BCE"),
)
