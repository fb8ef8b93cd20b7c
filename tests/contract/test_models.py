"""Every network of the union, on every encoder, gives logits at the image's size, and trains whole."""

from collections.abc import Callable
from typing import Literal, get_args

import pytest
import timm
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from fissura.models import (
    DRU,
    JTFN,
    AnyModel,
    AttentionResUNet,
    BackboneUNet,
    BackboneUNetNetwork,
    CrackFormer,
    DeepCrackLiu,
    DeepCrackZou,
    DeepLabV3,
    Frangi,
    HrSegNet,
    Niblack,
    ResEnc,
    Sato,
    Sauvola,
    SegFormer,
    UNet,
)
from fissura.models.encoders import EncoderName, MitSize
from fissura.models.side_outputs import SideOutputSegmenter
from fissura.models.timm_encoders import InceptionV3Encoder
from fissura.testing.models import MODEL_CHECKS, ModelCase

ENCODERS: tuple[EncoderName, ...] = get_args(EncoderName)
MODELS = (
    *(BackboneUNet(encoder=encoder, weights="none") for encoder in ENCODERS),
    UNet(width=8),
    UNet(width=4, depth=2, normalisation="none"),
    AttentionResUNet(width=4, side_channels=3),
    AttentionResUNet(width=4, depth=3, final="linear", normalisation="batch"),
    AttentionResUNet(width=4, depth=3, blocks="plain", gate="none", supervision="last"),
    JTFN(width=4),
    JTFN(width=4, blocks="residual", steps=1),
    DeepCrackZou(width=4),
    DeepCrackLiu(width=4),
    HrSegNet(width=4),
    DRU(width=4),
    DRU(width=3, unit="single", gates="linear", steps=1),
    CrackFormer(width=16),
    ResEnc(width=4),
    ResEnc(width=4, blocks=(1, 1, 3)),
    *(SegFormer(size=size, width=16, weights="none") for size in get_args(MitSize)),
    DeepLabV3(backbone="mobilenet_v3_large"),
    DeepLabV3(backbone="mobilenet_v3_large", outputs=2, trained="head"),
    Niblack(window=9, background=3),
    Sauvola(window=9, background=3),
    Frangi(sigma=1, scales=2, background=3),
    Sato(sigma=1, scales=2, background=3),
)


def name_of(model: AnyModel) -> str:
    match model:
        case BackboneUNet():
            return model.encoder
        case DeepLabV3():
            return f"{model.kind}-{model.trained}"
        case DRU():
            return f"{model.kind}-{model.unit}"
        case JTFN():
            return f"{model.kind}-{model.blocks}"
        case AttentionResUNet(blocks="plain"):
            return f"{model.kind}-{model.blocks}"
        case CrackFormer() | DeepCrackZou() | DeepCrackLiu() | HrSegNet():
            return model.kind
        case ResEnc():
            return f"{model.kind}-{len(model.blocks)}"
        case SegFormer():
            return f"{model.kind}-{model.size}"
        case Niblack() | Sauvola() | Frangi() | Sato():
            return model.kind
        case _:
            return f"{model.kind}-{model.normalisation}"


CASES = {
    name_of(model): ModelCase(model, frozen="backbone." if name_of(model) == "deeplabv3-head" else None)
    for model in MODELS
}


LARGER = {"vgg19", "resnet50", "segformer-b1", "segformer-b2"}
"""They differ from a smaller one of their family in numbers alone."""


FAMILIES = [pytest.param(each, marks=[pytest.mark.slow] if each in LARGER else []) for each in ENCODERS]


def drawn(encoder: EncoderName) -> BackboneUNetNetwork:
    network = CASES[encoder].network
    assert isinstance(network, BackboneUNetNetwork)
    return network


def test_every_kind_is_examined() -> None:
    assert {type(model) for model in MODELS} == set(get_args(get_args(AnyModel)[0]))
    assert len(CASES) == len(MODELS)


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if name in LARGER else [])
        for name, case in CASES.items()
    ],
)
def test_every_network(case: ModelCase, check: Callable[[ModelCase], None]) -> None:
    check(case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_union_reads_each_plain_form(case: ModelCase) -> None:
    assert TypeAdapter(AnyModel).validate_python(case.model.plain()) == case.model


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize(("width", "depth"), [(4, 1), (8, 4), (3, 5)])
def test_the_unet_has_the_parameters_of_its_drawing(
    width: int, depth: int, normalisation: Literal["none", "batch"]
) -> None:
    beside = {"none": 1, "batch": 2}[normalisation]  # a bias, or a scale and a shift, a channel

    def double(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 9 * outputs * outputs + 2 * beside * outputs

    widths = [width * 2**level for level in range(depth + 1)]
    down = double(3, width) + sum(double(c, 2 * c) for c in widths[:-1])
    up = sum(4 * 2 * c * c + c + double(2 * c, c) for c in widths[:-1])
    network = UNet(width=width, depth=depth, normalisation=normalisation).build()
    assert parameters(network) == down + up + width + 1


@pytest.mark.parametrize("model", [DeepCrackZou(width=4), DeepCrackLiu(width=4)], ids=lambda m: m.kind)
def test_the_crack_logits_of_a_deepcrack_are_the_fusion_of_its_side_maps(
    model: DeepCrackZou | DeepCrackLiu,
) -> None:
    network = CASES[model.kind].network
    assert isinstance(network, SideOutputSegmenter)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, sides = network.with_side_maps(image)
        torch.testing.assert_close(network(image), network.fuse(torch.cat(sides, dim=1)))
    assert len(sides) == 5


def test_resenc_weighs_its_masks_half_as_much_from_level_to_level_and_the_last_not_at_all() -> None:
    network = ResEnc(width=2).build()
    weights = [network.crack_weight, *(side.weight for side in network.side_maps)]
    assert weights == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])
    with torch.no_grad():
        _, sides = network.with_side_maps(torch.zeros(1, 3, 32, 48))
    assert [side.shape[2:] for side in sides] == [(16, 24), (8, 12), (4, 6)]


def test_each_step_of_jtfn_is_the_last_one_of_a_jtfn_of_fewer_steps() -> None:
    """And reads the mask of the step before it, through which its gradient passes."""
    image = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    networks = []
    for steps in (1, 2, 3):
        torch.manual_seed(0)
        networks.append(JTFN(width=4, steps=steps).build().eval())
    features, sides = networks[2].with_side_maps(image)
    last = networks[2].head(features)
    for network, logits in zip(networks, (sides[7], sides[15], last), strict=True):
        torch.testing.assert_close(network(image), logits)
    assert not torch.allclose(sides[7], last, atol=1e-3)
    # of the features, the head is a part through the mask of an earlier step alone
    (gradient,) = torch.autograd.grad(features.sum(), networks[2].get_parameter("to_logits.weight"))
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("encoder", FAMILIES)
def test_the_decoder_is_the_same_but_for_the_width_of_what_comes_in(encoder: EncoderName) -> None:
    network = drawn(encoder)
    half, quarter, eighth, sixteenth = network.encoder.channels
    blocks = ((sixteenth, eighth, 256), (256, quarter, 128), (128, half, 64), (64, 0, 32))
    expected = sum(
        4 * inputs * outputs + outputs + 9 * (outputs + skip) * outputs + 9 * outputs**2 + 4 * outputs
        for inputs, skip, outputs in blocks
    )
    assert parameters(network.decoder) == expected


@pytest.mark.parametrize("encoder", FAMILIES)
def test_the_skips_are_what_the_network_sees(encoder: EncoderName) -> None:
    network = drawn(encoder)
    with torch.no_grad():
        deepest, skips = network.encoder(torch.randn(1, 3, 64, 96))
    shapes = [
        (1, channels, 64 // 2**level, 96 // 2**level)
        for level, channels in enumerate(network.encoder.channels, 1)
    ]
    assert deepest.shape == shapes[3]
    assert [None if skip is None else skip.shape for skip in skips] == [
        shape if shape[1] else None for shape in (shapes[2], shapes[1], shapes[0])
    ]


def test_padded_inception_keeps_the_features_of_the_published_network() -> None:
    """Away from the border, and for an image that lies six pixels further right and down."""
    published = timm.create_model("inception_v3.tv_in1k", num_classes=0).eval()
    padded = InceptionV3Encoder().eval()
    padded.load_state_dict(published.state_dict())
    image = torch.randn(1, 3, 320, 320)
    with torch.no_grad():
        ours = padded(image)[2]
        features: Tensor = nn.functional.pad(image, (6, 0, 6, 0))
        for name in (*published.layer_names[: published.layer_names.index("Mixed_5d") + 1],):
            features = getattr(published, name)(features)
    inside = slice(12, 26)
    torch.testing.assert_close(
        ours[..., inside, inside],
        features[..., inside, inside],
        rtol=1e-3,
        atol=1e-4 * ours.abs().max().item(),
    )


@pytest.mark.parametrize(
    "mistake",
    [
        {"encoder": "resnet18"},
        {"decoder_channels": (1, 2, 3)},
        {"decoder_channels": (256, 128, 64, 0)},
        {"depth": 5},
    ],
)
def test_a_wrong_field_is_refused(mistake: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BackboneUNet(**mistake)
