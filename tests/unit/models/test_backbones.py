"""Backbones: whose networks they are, what an image becomes before them, which weights they take."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fissura.core.errors import SpecError, WeightsError
from fissura.models.backbones import BACKBONES, Backbone, BackboneName, FeatureNetwork, resized
from fissura.models.synchronised import synchronised

KINDS: tuple[BackboneName, ...] = get_args(BackboneName)


@pytest.fixture(scope="module")
def small() -> FeatureNetwork:
    torch.manual_seed(0)
    return Backbone(kind="efficientnet_lite", weights="none", input_size=32).build()


def images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size_become_features_of_one_width(kind: BackboneName) -> None:
    spec = Backbone(kind=kind, weights="none", input_size=32)
    network = spec.build()
    assert not any(module.training for module in network.modules())
    with torch.inference_mode():
        for shape in ((2, 32, 32, 3), (1, 50, 41, 3), (1, 20, 70, 3)):
            features = network(images(*shape))
            assert features.shape == (shape[0], spec.dimensions)
            assert features.dtype == torch.float32
            assert features.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_file_holds_the_backbone_under_its_own_names(kind: BackboneName) -> None:
    """The hub's file is the state of timm's network: all our tensors, and what is past the pooling."""
    source = BACKBONES[kind]
    with torch.device("meta"):
        published = timm.create_model(source.library_name).state_dict()
        body = Backbone(kind=kind, weights="none").build().body.state_dict()
    assert {name: tensor.shape for name, tensor in body.items()} == {
        name: tensor.shape
        for name, tensor in published.items()
        if name.split(".")[0] not in source.after_pooling
    }


@pytest.mark.parametrize("kind", KINDS)
def test_imagenet_means_timms_repository_and_its_pixels(kind: BackboneName) -> None:
    spec = Backbone(kind=kind)
    configuration = timm.get_pretrained_cfg(BACKBONES[kind].library_name)
    assert spec.hub_file().repository == configuration.hf_hub_id
    with torch.device("meta"):
        network = FeatureNetwork(spec)
    assert network.mean.shape == (1, 3, 1, 1)
    assert (configuration.mean, configuration.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_features_are_timms_pooled_ones_of_normalised_pixels() -> None:
    torch.manual_seed(3)
    network = Backbone(kind="resnet50", weights="none", input_size=32).build()
    library = timm.create_model("resnet50", num_classes=0).eval()
    library.load_state_dict(network.body.state_dict())
    given = images(2, 32, 32, 3)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    literal = ((given.numpy() / 255.0 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.inference_mode():
        expected = library(torch.from_numpy(literal))
        torch.testing.assert_close(network(given), expected, rtol=1e-3, atol=1e-5)


def test_shrinking_averages_and_does_not_skip() -> None:
    """A fine chessboard becomes grey; taking every fourth pixel would give stripes or one colour."""
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    chessboard = (((rows + columns) % 2) * 255).to(torch.uint8)[None, :, :, None].expand(1, 128, 128, 3)
    grey = resized(chessboard, size=32)
    assert grey.shape == (1, 3, 32, 32)
    assert float((grey - 0.5).abs().max()) < 0.02


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    given = images(1, 32, 32, 3)
    assert torch.equal((resized(given, size=32) * 255).round().to(torch.uint8).permute(0, 2, 3, 1), given)


def test_a_saved_backbone_gives_the_same_features(small: FeatureNetwork, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in small.body.state_dict().items()}, path)
    spec = Backbone(kind="efficientnet_lite", weights="trained", input_size=32)
    given = images(2, 40, 32, 3)
    with torch.inference_mode():
        for again in (spec.build(weights=path), spec.model_copy(update={"weights": str(path)}).build()):
            assert torch.equal(again(given), small(given))


def test_weights_of_another_backbone_are_refused(small: FeatureNetwork, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in small.body.state_dict().items()}, path)
    with pytest.raises(WeightsError, match="do not fit the network: the file lacks"):
        Backbone(kind="mobilenet_v3", input_size=32).build(weights=path)


@pytest.mark.parametrize("weights", ["trained", "distilled"])
def test_weights_that_are_still_to_be_learnt_are_asked_for(weights: str) -> None:
    with pytest.raises(WeightsError, match=f"`backbone.weights: {weights}` is a file .* none was given"):
        Backbone(kind="resnet50", weights=weights).build()


@pytest.mark.parametrize("plain", [{"kind": "vgg19"}, {"kind": "vgg16", "input_size": 16}, {}])
def test_an_impossible_backbone_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        Backbone.load(plain, source="recipe")


def test_batch_normalisation_over_workers_keeps_its_activation(small: FeatureNetwork) -> None:
    """timm puts activations into its normalisations; PyTorch's own conversion loses them."""
    before = [module.act for module in small.body.modules() if hasattr(module, "act")]
    with torch.device("meta"):
        network = Backbone(kind="efficientnet_lite", weights="none").build()
    converted = synchronised(network.body)
    after = [module.act for module in converted.modules() if hasattr(module, "act")]
    assert [type(act) for act in after] == [type(act) for act in before]
    kinds = {
        type(module) for module in converted.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    assert kinds
    assert all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
