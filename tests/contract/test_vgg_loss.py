"""The loss of VGG-UNet: the layers that it reads, where its weights come from, and what is not kept of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from fissura.core.errors import WeightsError
from fissura.core.pretrained import Hub, check_weights
from fissura.losses import BCE, VGG, Term, VGGLoss, WeightedSum
from fissura.models import UNet
from fissura.models.encoders import SOURCES
from fissura.recipes import load_recipe
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import segmenter_of


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Sequential, Path]:
    """torchvision's VGG19 without its classifier, and a file of it, with a tensor of the classifier."""
    with torch.random.fork_rng(devices=[]):
        layers = make_layers(cfgs["E"])
    path = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    named = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    save_file({**named, "classifier.0.bias": torch.zeros(3)}, path)
    return layers, path


def test_it_reads_the_rectified_maps_of_three_published_layers(published: tuple[nn.Sequential, Path]) -> None:
    layers, path = published
    x = torch.rand(1, 1, 20, 28, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(of).view(1, 3, 1, 1) for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    current, expected = (x.repeat(1, 3, 1, 1) - mean) / std, []
    for number, layer in enumerate(layers[:18]):
        current = layer(current)
        if number in (3, 8, 17):
            expected.append(current.clone())  # the next layer may write into it
    found = VGG(weights=str(path)).build().maps(x)
    assert [tuple(of.shape[1:]) for of in found] == [(64, 20, 28), (128, 10, 14), (256, 5, 7)]
    torch.testing.assert_close(found, expected)


def test_its_network_has_2_33_million_weights_and_no_parameter() -> None:
    loss = VGG(weights="none").build()
    assert sum(of.numel() for name, of in loss.named_buffers() if name.startswith("features")) == 2_325_568
    assert not list(loss.parameters())


def test_no_state_of_a_training_holds_its_network() -> None:
    terms = Term(name="bce", loss=BCE()), Term(name="topology", weight=0.1, loss=VGG(weights="none"))
    network = UNet(width=2, depth=1).build()
    objective = PhaseObjective(network, WeightedSum(terms=terms))
    assert {name.partition(".")[0] for name in objective.state_dict()} == {"model"}
    objective.load_state_dict(objective.state_dict())


def test_it_reaches_the_network_that_is_trained_and_adds_its_share() -> None:
    spec = VGG(weights="none")
    loss = WeightedSum(terms=(Term(name="bce", loss=BCE()), Term(name="top", weight=0.1, loss=spec)))
    y = torch.zeros(1, 1, 16, 16)
    y[..., 7:9, :] = 1
    z, v = torch.zeros_like(y).requires_grad_(), torch.ones_like(y)
    found = loss.criterion(1)((z,), y, v, {})
    assert found.item() == pytest.approx((BCE().build()(z, y, v) + 0.1 * spec.build()(z, y, v)).item())
    (gradient,) = torch.autograd.grad(spec.build()(z, y, v), z)
    assert gradient.ne(0).all()


def test_random_weights_are_the_same_in_every_training_and_move_no_random_state() -> None:
    before = torch.get_rng_state()
    one = VGG(weights="none").build()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    other = VGG(weights="none").build()
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


class TestWeights:
    def test_the_published_ones_are_those_of_the_encoder(self) -> None:
        file = VGG().hub_file()
        assert (file.repository, file.revision) == (SOURCES["vgg19"].repository, SOURCES["vgg19"].revision)

    def test_without_a_network_the_recipe_says_what_it_needs(self, tmp_path: Path) -> None:
        recipe = segmenter_of(load_recipe("vgg_unet"))
        with pytest.raises(WeightsError, match=r"`loss\.weights: imagenet`: the weights of vgg19") as caught:
            check_weights(
                *recipe.weights_wanted, hub=Hub(endpoint="http://127.0.0.1:9", cache=tmp_path, seconds=0.5)
            )
        assert "or to the path of a copy" in str(caught.value)

    def test_of_a_file_it_takes_no_other_network(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
        with pytest.raises(WeightsError, match=r"lacks features\.0\.bias.* set `loss\.weights` to none"):
            VGG(weights=str(path)).build()
        with pytest.raises(WeightsError, match=r"set `loss\.weights` to imagenet or none"):
            VGG(weights="imagnet").build()

    def test_a_file_is_taken(self, published: tuple[nn.Sequential, Path]) -> None:
        layers, path = published
        loss = VGG(weights=str(path)).build()
        assert isinstance(loss, VGGLoss)
        assert torch.equal(loss.get_buffer("features_16_bias"), layers[16].bias)
