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
    "balanced_bce": {"kind": "balanced_bce"},
    "topology": {
        "kind": "weighted_sum",
        "terms": [
            {"name": "ce", "weight": 1.0, "loss": {"kind": "bce"}},
            {"name": "topology", "weight": 0.05, "loss": {"kind": "topology"}},
        ],
    },
    "dice_bce": {"kind": "dice_bce"},
    "ohem_bce": {"kind": "ohem_bce"},
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


FILTERS = ("niblack", "sauvola", "frangi", "sato")
"""The spaces that have no profile for a machine: nothing is trained."""


@dataclass(frozen=True)
class Row:
    """A network and how it is trained: `settings` over the paper's own in the search space `space`, as its
    profile makes them small. Rows of `cnn_svm` are classifiers, all others segment."""

    name: str
    space: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classifies(self) -> bool:
        """Whether its data is labelled images."""
        return self.space == "cnn_svm"


@dataclass(frozen=True)
class Claim:
    """What `paper` says: the row `better` scores more than the row `worse`, under a protocol or, of
    classifiers, a condition of the images."""

    paper: str
    better: str
    worse: str
    under: str = "pixel"


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
    Row("CrackFormer-II", "crackformer", {"model.width": 16}),
    Row("DRU, light", "dru", {"model.width": 8}),
    Row("DeepCrack (Zou)", "deepcrack_zou", {"model.width": 16}),
    Row("DeepCrack (Liu)", "deepcrack_liu", {"model.width": 16}),
    Row("HrSegNet-B16", "hrsegnet"),
    Row("SegFormer-B0", "segformer"),
    Row("ResEnc-S", "resenc"),
    *(Row(name.capitalize(), name) for name in FILTERS),
    Row("DeepLabV3, focal", "deeplab_focal"),
    Row("DeepLabV3, BCE", "deeplab_focal", {"phases.train.loss": {"kind": "bce"}}),
    *(
        Row(f"U-Net, {name}", "cirl", {"model": SMALL_UNET, **BASE, "phases.ambiguity.loss": loss})
        for name, loss in LOSSES.items()
    ),
    Row("CNN + SVM", "cnn_svm", {"classifier": {"kind": "svm"}, "whitening": {"kind": "none"}}),
    Row("CNN + SVM, ZCA", "cnn_svm", {"classifier": {"kind": "svm"}, "whitening": {"kind": "zca"}}),
    Row("CNN + forest", "cnn_svm", {"classifier": {"kind": "forest"}, "whitening": {"kind": "none"}}),
    Row(
        "CNN end to end",
        "cnn_svm",
        {"backbone.weights": "trained", "backbone_share": 0.4, "classifier": {"kind": "head"}},
    ),
    Row(
        "distilled CNN + SVM",
        "cnn_svm",
        {
            "backbone.weights": "distilled",
            "backbone_share": 0.4,
            "classifier": {"kind": "svm"},
            "whitening": {"kind": "none"},
        },
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
    Claim("Yang, SVM over forest", "CNN + SVM", "CNN + forest", under="clean"),
    *(
        Claim(f"Yang, {name} under interference", row, "CNN + SVM", under=condition)
        for name, row in (("ZCA", "CNN + SVM, ZCA"), ("distillation", "distilled CNN + SVM"))
        for condition in ("shadow", "stain")
    ),
)
