"""DeepLabV3 is torchvision's network, and takes torchvision's weights once they are no pickle."""

import copy
import re
from pathlib import Path
from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import segmentation

from fissura.core.errors import WeightsError
from fissura.models import DeepLabV3, DeepLabV3Network, check_weights
from fissura.models.deeplab import Backbone

SMALL: Backbone = "mobilenet_v3_large"


def published(backbone: Backbone, *, outputs: int, auxiliary: bool) -> nn.Module:
    """torchvision's network, at random."""
    make = getattr(segmentation, f"deeplabv3_{backbone}")
    network: nn.Module = make(
        weights=None, weights_backbone=None, num_classes=outputs, aux_loss=auxiliary
    ).eval()
    return network


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A file as the error's recipe makes it: 21 classes and the auxiliary classifier."""
    path = tmp_path / "coco.safetensors"
    save_file(published(SMALL, outputs=21, auxiliary=True).state_dict(), path)
    return path


@pytest.mark.parametrize("backbone", get_args(Backbone))
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_tensors_are_torchvision_s(backbone: Backbone, outputs: int) -> None:
    with torch.device("meta"):
        ours = DeepLabV3(backbone=backbone, outputs=outputs).build().state_dict()
        theirs = published(backbone, outputs=outputs, auxiliary=False).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }


def test_the_default_is_resnet101_with_one_map() -> None:
    with torch.device("meta"):
        network = DeepLabV3().build()
    assert network.stride == 8
    assert network.classifier[-1].weight.shape == (1, 256, 1, 1)
    # 60,996,202 are published for 21 classes and an auxiliary classifier, which has 2,365,205
    assert sum(p.numel() for p in network.parameters()) == 60_996_202 - 2_365_205 - 20 * 257


@pytest.mark.parametrize(("backbone", "outputs"), [("resnet50", 1), (SMALL, 1), (SMALL, 2)])
def test_the_sigmoid_of_the_logit_is_torchvision_s_probability(backbone: Backbone, outputs: int) -> None:
    network = DeepLabV3(backbone=backbone, outputs=outputs).build().eval().double()
    theirs = published(backbone, outputs=outputs, auxiliary=False).double()
    theirs.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        maps: Tensor = theirs(image)["out"]
        probability = maps.sigmoid() if outputs == 1 else maps.softmax(dim=1)[:, 1:]
        torch.testing.assert_close(network(image).sigmoid(), probability)
        torch.testing.assert_close(network.head(network.features(image)).sigmoid(), probability)


class TestHeadAlone:
    def trained_a_step(self) -> tuple[dict[str, Tensor], DeepLabV3Network]:
        network = DeepLabV3(backbone=SMALL, trained="head").build()
        before = copy.deepcopy(network.state_dict())
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1)
        network.train()
        network(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        return before, network

    def test_the_backbone_keeps_its_weights_and_its_statistics(self) -> None:
        before, network = self.trained_a_step()
        changed = {
            name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
        }
        assert changed == {name for name in before if name.startswith("classifier.")}

    def test_the_head_normalises_by_the_batch_and_the_backbone_does_not(self) -> None:
        _, network = self.trained_a_step()
        normalising = {
            name: layer.training
            for name, layer in network.named_modules()
            if isinstance(layer, nn.BatchNorm2d)
        }
        assert normalising == {name: name.startswith("classifier.") for name in normalising}
        assert set(normalising.values()) == {True, False}


class TestWeights:
    def test_torchvision_s_file_gives_all_but_the_last_convolution(self, coco: Path) -> None:
        network, file = DeepLabV3(backbone=SMALL, weights=str(coco)).build(), load_file(coco)
        own = network.state_dict()
        taken = {name for name in own if own[name].shape == file[name].shape}
        assert set(own) - taken == {"classifier.4.weight", "classifier.4.bias"}
        assert all(torch.equal(own[name], file[name]) for name in taken)

    def test_the_last_convolution_is_drawn_as_without_a_file(self, coco: Path) -> None:
        torch.manual_seed(3)
        random = DeepLabV3(backbone=SMALL).build()
        torch.manual_seed(3)
        network = DeepLabV3(backbone=SMALL, weights=str(coco)).build()
        assert torch.equal(network.classifier[-1].weight, random.classifier[-1].weight)

    def test_torchvision_s_file_passes_the_check(self, coco: Path) -> None:
        check_weights(DeepLabV3(backbone=SMALL, weights=str(coco)))

    def test_another_backbone_s_file_is_refused(self, coco: Path) -> None:
        with pytest.raises(WeightsError, match="do not fit the network"):
            check_weights(DeepLabV3(backbone="resnet50", weights=str(coco)))

    @pytest.mark.parametrize(("name", "backbone"), [("imagenet", SMALL), ("coco", "resnet101")])
    def test_a_pickle_s_name_is_refused_with_the_way_to_the_file(self, name: str, backbone: Backbone) -> None:
        with pytest.raises(WeightsError, match="a pickle, which can run code and is never loaded") as refusal:
            check_weights(DeepLabV3(backbone=backbone, weights=name))
        assert f"deeplabv3_{backbone}" in str(refusal.value)

    @pytest.mark.parametrize("backbone", ["resnet101", "resnet50"])
    def test_imagenet_is_a_resnet_s_file_on_the_hub(self, backbone: Backbone) -> None:
        own = smp.encoders.encoders[backbone]["pretrained_settings"]["imagenet"]
        file = DeepLabV3(backbone=backbone, weights="imagenet").hub_file()
        assert (file.repository, file.revision) == (own["repo_id"], own["revision"])

    def test_a_backbone_s_own_file_leaves_the_head_at_random(self, tmp_path: Path) -> None:
        """The names are those of the file on the hub, which keeps its classifier."""
        encoder = smp.encoders.get_encoder("resnet50", weights=None).state_dict()
        path = tmp_path / "resnet50.safetensors"
        save_file({**encoder, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
        state = DeepLabV3(backbone="resnet50", weights=str(path)).build().state_dict()
        backbone = {name.removeprefix("backbone."): state[name] for name in state if name.startswith("back")}
        assert backbone.keys() == encoder.keys()
        assert all(torch.equal(backbone[name], encoder[name]) for name in encoder)

    def test_the_way_to_the_file_is_python_that_makes_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As it stands, but for the download."""
        with pytest.raises(WeightsError) as refusal:
            DeepLabV3(backbone=SMALL, weights="coco").build()
        (recipe,) = re.findall(r'python -c "(.*?)"', str(refusal.value))
        monkeypatch.chdir(tmp_path)
        exec(recipe.replace("weights='DEFAULT'", "weights=None, weights_backbone=None, aux_loss=True"))  # noqa: S102
        check_weights(DeepLabV3(backbone=SMALL, weights=str(tmp_path / "coco.safetensors")))
