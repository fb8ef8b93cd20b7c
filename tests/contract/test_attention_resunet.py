"""The attention ResU-Net against its drawing: counted, and computed again in NumPy, loop by loop."""

from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from fissura.core.errors import WeightsError
from fissura.models import AttentionResUNet, AttentionResUNetNetwork
from fissura.models.attention_resunet import AttentionGate, ResidualBlock
from fissura.recipes import load_recipe

Array = NDArray[np.float64]
State = dict[str, Array]
Final = Literal["relu", "linear"]
FINALS: tuple[Final, ...] = get_args(Final)


def state_of(module: nn.Module) -> State:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def under(state: State, prefix: str) -> State:
    return {
        name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(prefix)
    }


def positive(maps: Array) -> Array:
    return np.maximum(maps, 0)


def pointwise(state: State, name: str, maps: Array) -> Array:
    mixed: Array = np.einsum("oi,ihw->ohw", state[f"{name}.weight"][:, :, 0, 0], maps)
    return mixed + state.get(f"{name}.bias", np.zeros(len(mixed)))[:, None, None]


def residual_block(state: State, maps: Array, *, blocks: str = "residual") -> Array:
    """r = conv1x1(x); four times 3x3 and ReLU on r; the sum of the two, or a plain block's second alone."""
    linear = current = pointwise(state, "linear", maps)
    for layer in (0, 2, 4, 6):
        weight, bias = (state[f"convolutions.{layer}.{part}"] for part in ("weight", "bias"))
        height, width = current.shape[1:]
        padded = np.pad(current, ((0, 0), (1, 1), (1, 1)))
        current = np.tile(bias[:, None, None], (1, height, width))
        for row in range(3):
            for column in range(3):
                window = padded[:, row : row + height, column : column + width]
                current += np.einsum("oi,ihw->ohw", weight[:, :, row, column], window)
        current = positive(current)
    return linear + current if blocks == "residual" else current


def gate(state: State, x: Array, u: Array) -> Array:
    """a = sigmoid(W_v relu(W_x x + W_u u + b_u) + b_v), pixel by pixel; a * x."""
    gated = np.empty_like(x)
    w_x, w_u, w_v = (
        state[f"{name}.weight"][:, :, 0, 0] for name in ("from_skip", "from_below", "to_coefficient")
    )
    b_u, b_v = state["from_below.bias"], state["to_coefficient.bias"]
    for row, column in np.ndindex(x.shape[1:]):
        x_i, u_i = x[:, row, column], u[:, row, column]
        (v,) = w_v @ positive(w_x @ x_i + w_u @ u_i + b_u) + b_v
        gated[:, row, column] = 1 / (1 + np.exp(-v)) * x_i
    return gated


def halved(maps: Array) -> Array:
    channels, height, width = maps.shape
    pooled: Array = maps.reshape(channels, height // 2, 2, width // 2, 2).max(axis=(2, 4))
    return pooled


def doubled(state: State, maps: Array) -> Array:
    """Transposed 2x2 convolution of stride 2, and ReLU."""
    weight, bias = state["up.weight"], state["up.bias"]
    _, height, width = maps.shape
    up = np.empty((len(bias), 2 * height, 2 * width))
    for row, column in np.ndindex(2, 2):
        up[:, row::2, column::2] = np.einsum("io,ihw->ohw", weight[:, :, row, column], maps)
    return positive(up + bias[:, None, None])


def bilinear(maps: Array, size: tuple[int, int]) -> Array:
    """Each pixel's centre is looked up between the centres of the small map's pixels."""
    for axis, length in zip((1, 2), size, strict=True):
        small = maps.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * small / length - 0.5, 0, small - 1)
        left = np.floor(place).astype(int)
        right = np.minimum(left + 1, small - 1)
        share = (place - left).reshape((-1, 1) if axis == 1 else -1)
        maps = maps.take(left, axis) * (1 - share) + maps.take(right, axis) * share
    return maps


def crack_probability(state: State, image: Array, spec: AttentionResUNet) -> tuple[Array, Array]:
    """What Figure 1 draws, without what the spec leaves out, and the two maps before their softmax."""
    skips, current = [], image
    for level in range(spec.depth):
        current = halved(current) if level else current
        current = residual_block(under(state, f"encoder.{level}"), current, blocks=spec.blocks)
        skips.append(current)
    current, outputs = skips.pop(), []
    for index in range(spec.depth - 1):
        block = under(state, f"decoder.{index}")
        up, skip = doubled(block, current), skips.pop()
        passed = gate(under(block, "gate"), skip, up) if spec.gate == "attention" else skip
        current = residual_block(under(block, "block"), np.concatenate((passed, up)), blocks=spec.blocks)
        outputs.append(current)
    supervised = outputs if spec.supervision == "deep" else outputs[-1:]
    sides = [
        bilinear(pointwise(state, f"sides.{index}", output), image.shape[1:])
        for index, output in enumerate(supervised)
    ]
    maps = pointwise(state, "to_classes", np.concatenate(sides))
    if spec.final == "relu":
        maps = positive(maps)
    return np.exp(maps[1]) / np.exp(maps).sum(axis=0), maps


def random_network(spec: AttentionResUNet) -> AttentionResUNetNetwork:
    """In double precision, with biases that are not 0, and class maps on both sides of 0."""
    network = spec.build().double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.2)
        network.to_classes.weight.mul_(5)
    return network


def test_a_residual_block_is_the_one_of_section_2_2() -> None:
    block = ResidualBlock(3, 5, blocks="residual", normalisation="none").double()
    maps = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        output = block(maps)[0].numpy()
    np.testing.assert_allclose(output, residual_block(state_of(block), maps[0].numpy()), atol=1e-12)


def test_an_attention_gate_is_the_one_of_section_2_3() -> None:
    module = AttentionGate(4).double()
    skip, below = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        output = module(skip, below)[0].numpy()
    expected = gate(state_of(module), skip[0].numpy(), below[0].numpy())
    np.testing.assert_allclose(output, expected, atol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        *(
            AttentionResUNet(width=3, depth=depth, side_channels=4, final=final)
            for depth in (2, 4)
            for final in FINALS
        ),
        AttentionResUNet(width=3, depth=3, blocks="plain"),
        AttentionResUNet(width=3, depth=3, gate="none"),
        AttentionResUNet(width=3, depth=3, supervision="last"),
        AttentionResUNet(width=3, depth=4, blocks="plain", gate="none", supervision="last"),
    ],
    ids=str,
)
def test_the_sigmoid_of_the_logit_is_the_softmax_of_figure_1(spec: AttentionResUNet) -> None:
    network = random_network(spec)
    image = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        probability = torch.sigmoid(network(image))[0, 0].numpy()
    expected, maps = crack_probability(state_of(network), image[0].numpy(), spec)
    assert probability.std() > 0.001
    assert (maps == 0).any() == (spec.final == "relu")
    np.testing.assert_allclose(probability, expected, rtol=1e-9)


@pytest.mark.parametrize("final", FINALS)
def test_the_cheaper_order_has_the_same_gradients(final: Final) -> None:
    network = random_network(AttentionResUNet(width=3, depth=3, side_channels=4, final=final))
    image = torch.randn(2, 3, 8, 12, dtype=torch.float64)

    def gradients(logits: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(logits.sin().sum(), list(network.parameters())))

    for cheap, drawn in zip(
        gradients(network(image)), gradients(network.head(network.features(image))), strict=True
    ):
        torch.testing.assert_close(cheap, drawn)


@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize(("width", "depth", "side"), [(16, 4, 16), (3, 2, 5), (2, 6, 2)])
def test_it_has_the_parameters_of_its_drawing(
    width: int, depth: int, side: int, normalisation: Literal["none", "batch"]
) -> None:
    beside = {"none": 1, "batch": 2}[normalisation]  # a bias, or a scale and a shift, a channel

    def block(inputs: int, c: int) -> int:
        return inputs * c + c + 4 * (9 * c * c + beside * c)

    widths = [width * 2**level for level in range(depth)]
    encoder = sum(block(inputs, c) for inputs, c in zip((3, *widths), widths, strict=False))
    decoder = sum(
        (4 * 2 * c * c + c)  # up
        + (2 * c * c + c + c + 1)  # the gate: W_x, W_u and b_u, W_v and b_v
        + block(2 * c, c)
        + (c * side + side)
        for c in widths[:-1]
    )
    spec = AttentionResUNet(width=width, depth=depth, side_channels=side, normalisation=normalisation)
    counted = sum(parameter.numel() for parameter in spec.build().parameters())
    assert counted == encoder + decoder + 2 * side * (depth - 1) + 2


def test_each_decoder_block_has_its_own_maps_among_the_features() -> None:
    """Deep supervision: what the shallow block does is nothing to the maps of the deeper ones."""
    network = AttentionResUNet(width=4, depth=4, side_channels=3).build()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = network.features(image)
        for parameter in network.decoder[2].parameters():
            parameter.zero_()
        after = network.features(image)
    assert before.shape == (1, 9, 16, 16)
    assert torch.equal(after[:, :6], before[:, :6])
    assert not torch.equal(after[:, 6:], before[:, 6:])


@pytest.mark.parametrize("seed", range(5))
def test_the_class_maps_can_part_by_4_before_the_last_relu_cuts_one(seed: int) -> None:
    """A logit of -4 says that 1 pixel in 56 is crack: what the first steps of training learn."""
    torch.manual_seed(seed)
    network = AttentionResUNet().build()
    with torch.no_grad():
        maps = network.to_classes(network.features(torch.randn(4, 3, 48, 48)))
    assert ((maps > 2).float().mean(dim=(0, 2, 3)) > 0.99).all()


def test_what_each_idea_costs_is_what_its_ablation_lacks() -> None:
    def weights(**ablation: Any) -> int:
        return sum(parameter.numel() for parameter in AttentionResUNet(**ablation).build().parameters())

    whole, widths = weights(), (16, 32, 64)
    assert weights(blocks="plain") == whole  # a sum has no weights
    assert weights(gate="none") == whole - sum(2 * c * c + c + c + 1 for c in widths)
    assert weights(supervision="last") == whole - sum(c * 16 + 16 for c in (32, 64)) - 2 * 32


def test_a_run_of_the_paper_s_network_keeps_the_name_that_it_had_before_the_ablations() -> None:
    assert {"blocks", "gate", "supervision"}.isdisjoint(AttentionResUNet().named_by())
    assert AttentionResUNet(gate="none").named_by()["gate"] == "none"
    recipe = load_recipe("attention_resunet")
    assert recipe.configuration == "2fcfc6012fda5d55"


def test_imagenet_is_refused() -> None:
    with pytest.raises(WeightsError, match="never trained on ImageNet"):
        AttentionResUNet(weights="imagenet").build()


@pytest.mark.parametrize(
    "mistake", [{"depth": 1}, {"side_channels": 1}, {"final": "softmax"}, {"gate": None}, {"width": 0}]
)
def test_a_wrong_field_is_refused(mistake: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AttentionResUNet(**mistake)
