"""Every network of the union, on every encoder, gives logits at the image's size, and trains whole."""

import copy
import functools
import hashlib
from pathlib import Path
from typing import Literal, get_args

import pytest
import timm
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fissura.models import AnyModel, AttentionResUNet, BackboneUNet, DeepLabV3, Segmenter, UNet
from fissura.models.encoders import EncoderName
from fissura.models.timm_encoders import InceptionV3Encoder

ENCODERS: tuple[EncoderName, ...] = get_args(EncoderName)
MODELS = (
    *(BackboneUNet(encoder=encoder, weights="none") for encoder in ENCODERS),
    UNet(width=8),
    UNet(width=4, depth=2, normalisation="none"),
    AttentionResUNet(width=4, side_channels=3),
    AttentionResUNet(width=4, depth=3, final="linear", normalisation="batch"),
    DeepLabV3(backbone="mobilenet_v3_large"),
    DeepLabV3(backbone="mobilenet_v3_large", outputs=2, trained="head"),
)


def name_of(model: AnyModel) -> str:
    match model:
        case BackboneUNet():
            return model.encoder
        case DeepLabV3():
            return f"{model.kind}-{model.trained}"
        case _:
            return f"{model.kind}-{model.normalisation}"


def fingerprint(network: Segmenter) -> dict[str, str]:
    """A hash of the bits of each tensor."""
    state = network.state_dict()
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.items()}


@functools.cache
def seeded(model: AnyModel) -> tuple[Segmenter, dict[str, str]]:
    """The network in evaluation mode, its statistics those of images, and what was drawn."""
    torch.manual_seed(7)
    network = model.build()
    initial = fingerprint(network)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 64, 64))
    return network.eval(), initial


def drawn(model: AnyModel) -> Segmenter:
    return seeded(model)[0]


def test_every_kind_is_examined() -> None:
    assert {type(model) for model in MODELS} == set(get_args(get_args(AnyModel)[0]))


@pytest.mark.parametrize("model", MODELS, ids=name_of)
class TestEveryNetwork:
    @pytest.mark.parametrize("multiples", [(1, 1), (2, 4), (5, 3)])
    def test_gives_finite_logits_at_the_size_of_the_image(
        self, model: AnyModel, multiples: tuple[int, int]
    ) -> None:
        network = drawn(model)
        height, width = (network.stride * multiple for multiple in multiples)
        image = torch.randn(2, 3, height, width)
        with torch.no_grad():
            features = network.features(image)
            logits = network(image)
            by_the_head = network.head(features)
        assert features.shape == (2, network.feature_channels, height, width)
        assert logits.shape == (2, 1, height, width)
        assert torch.isfinite(logits).all()
        scale = logits.abs().max().item()
        torch.testing.assert_close(logits, by_the_head, rtol=1e-4, atol=1e-5 * (1 + scale))

    def test_every_parameter_is_trained_but_a_frozen_backbone_s(self, model: AnyModel) -> None:
        network = copy.deepcopy(drawn(model)).train()
        network(torch.randn(2, 3, 64, 64)).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        frozen = isinstance(model, DeepLabV3) and model.trained == "head"
        unused = [name for name in gradients if frozen and name.startswith("backbone.")]
        assert [name for name, gradient in gradients.items() if gradient is None] == unused
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients.values())

    def test_the_same_seed_draws_the_same_weights_bit_for_bit(self, model: AnyModel) -> None:
        _, initial = seeded(model)
        torch.manual_seed(7)
        assert fingerprint(model.build()) == initial

    def test_another_seed_draws_others(self, model: AnyModel) -> None:
        _, initial = seeded(model)
        torch.manual_seed(8)
        network = model.build()
        again = fingerprint(network)
        layers = [
            f"{name}.weight"
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        assert [name for name in layers if again[name] == initial[name]] == []

    def test_evaluation_is_deterministic_and_each_image_stands_alone(self, model: AnyModel) -> None:
        network, images = drawn(model), torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            together = network(images)
            assert torch.equal(network(images), together)
            alone = torch.cat([network(image) for image in images.split(1)])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4 * together.abs().max().item())

    def test_survives_its_plain_form(self, model: AnyModel) -> None:
        assert TypeAdapter(AnyModel).validate_python(model.plain()) == model

    def test_its_weights_survive_a_file(self, model: AnyModel, tmp_path: Path) -> None:
        network, image = drawn(model), torch.randn(1, 3, 64, 64)
        path = tmp_path / "weights.safetensors"
        save_file(network.state_dict(), path)
        twin = model.model_copy(update={"weights": str(path)}).build().eval()
        with torch.no_grad():
            assert torch.equal(twin(image), network(image))
        assert load_file(path).keys() == twin.state_dict().keys()


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


def test_the_unet_of_the_default_is_the_one_everybody_has() -> None:
    assert parameters(UNet().build()) == 31_037_633


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_decoder_is_the_same_but_for_the_width_of_what_comes_in(encoder: EncoderName) -> None:
    network = drawn(BackboneUNet(encoder=encoder, weights="none"))
    half, quarter, eighth, sixteenth = network.encoder.channels
    blocks = ((sixteenth, eighth, 256), (256, quarter, 128), (128, half, 64), (64, 0, 32))
    expected = sum(
        4 * inputs * outputs + outputs + 9 * (outputs + skip) * outputs + 9 * outputs**2 + 4 * outputs
        for inputs, skip, outputs in blocks
    )
    assert parameters(network.decoder) == expected


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_skips_are_what_the_network_sees(encoder: EncoderName) -> None:
    network = drawn(BackboneUNet(encoder=encoder, weights="none"))
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
