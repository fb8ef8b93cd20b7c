"""torchvision's DeepLabV3 with another head (Siriborvornratanakul, Advances in Multimedia 2022)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import resized
from fissura.models.segmenter import Segmenter
from fissura.models.weights import HubFile, ModelSpec, fill, starting_tensors

Backbone = Literal["resnet101", "resnet50", "mobilenet_v3_large"]

STRIDES: Mapping[Backbone, int] = {"resnet101": 8, "resnet50": 8, "mobilenet_v3_large": 16}
LAST = "classifier.4."
IMAGENET: Mapping[Backbone, HubFile] = {
    "resnet101": HubFile(
        "resnet101", "smp-hub/resnet101.imagenet", "cd7c15e8c51da86ae6a084515fdb962d0c94e7d1", "BSD-3-Clause"
    ),
    "resnet50": HubFile(
        "resnet50", "smp-hub/resnet50.imagenet", "00cb74e366966d59cd9a35af57e618af9f88efe9", "BSD-3-Clause"
    ),
}


class DeepLabV3(ModelSpec):
    """torchvision's DeepLabV3 with `outputs` maps, without the auxiliary classifier.

    One map is a crack logit, as in the paper; two are the classes non-crack and crack under a softmax, whose
    logit is their difference. `trained: head` trains the DeepLab head alone: the backbone keeps its weights
    and its batch statistics.

    `weights` is `none` (random, torchvision's initialisation; the paper's best), `imagenet` (a ResNet's; the
    head is random), or the path of a .safetensors file: a whole network's as a run keeps it, torchvision's
    COCO network's, or the backbone's alone. The last convolution is left out where it has another number of
    maps, and starts at random.

    A training batch holds at least two images: batch normalisation after the global pooling has one value for
    each image and channel, and PyTorch refuses a single one.
    """

    paper: ClassVar[Paper | None] = Paper("Chen et al.", "arXiv:1706.05587", 2017)
    variant: ClassVar[str | None] = "backbone"
    kind: Literal["deeplabv3"] = "deeplabv3"
    backbone: Backbone = "resnet101"
    outputs: Literal[1, 2] = 1
    trained: Literal["all", "head"] = "all"

    def build(self) -> "DeepLabV3Network":
        """The network; see `ModelSpec.build`."""
        if self.weights == "coco":
            self.hub_file()  # refuses
        tensors = starting_tensors(self)
        network = DeepLabV3Network(self)
        if tensors is not None:
            network.load(tensors, source=self.weights)
        return network

    def hub_file(self) -> HubFile:
        """The ResNet's published ImageNet weights.

        Raises:
            WeightsError: they are published only as a pickle.
        """
        if self.weights != "coco" and self.backbone in IMAGENET:
            return IMAGENET[self.backbone]
        converted = (
            'python -c "from safetensors.torch import save_file; from torchvision.models.segmentation import '
            f"deeplabv3_{self.backbone} as network; "
            "save_file(network(weights='DEFAULT').state_dict(), 'coco.safetensors')\""
        )
        raise WeightsError(
            f"`model.weights: {self.weights}`: torchvision publishes the weights of DeepLabV3 as a pickle, "
            f"which can run code and is never loaded; convert it where you trust it ({converted}) and give "
            "the path of that file, or set `model.weights` to none"
        )


class DeepLabV3Network(Segmenter):
    """A dilated backbone and the DeepLab head, under torchvision's names; features: the head's 256 maps."""

    published_part = "backbone."

    def __init__(self, spec: DeepLabV3) -> None:
        super().__init__()
        self.stride = STRIDES[spec.backbone]
        self.frozen = spec.trained == "head"
        whole = _whole(spec)
        self.backbone = whole.backbone.requires_grad_(not self.frozen)
        self.classifier = whole.classifier
        self.feature_channels = self.classifier[-1].in_channels

    def train(self, mode: bool = True) -> "DeepLabV3Network":  # noqa: FBT001, FBT002  PyTorch's signature
        """See `nn.Module.train`; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """What the last convolution reads, up-sampled bilinearly."""
        return resized(self._maps(image), like=image)

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution; of two maps, crack minus non-crack."""
        maps: Tensor = self.classifier[-1](features)
        return maps[:, 1:] - maps[:, :1] if maps.shape[1] == 2 else maps

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Crack logits: head(features(image)), which is linear and so may come before the up-sampling."""
        return resized(self.head(self._maps(image)), like=image)

    def load(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Loads a whole network's weights, except a last convolution with another number of maps; or a
        backbone's alone.

        Raises:
            WeightsError: they do not fit; `source` names the file.
        """
        if not any(name.startswith(("backbone.", "classifier.")) for name in tensors):
            fill(self.backbone, tensors, source=source, own_name=_backbone_name)
            return
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(LAST)}
        given = tensors.get(f"{LAST}weight")
        if given is not None and len(given) != len(own[f"{LAST}weight"]):
            tensors = {**tensors, **own}
        fill(self, tensors, source=source, own_name=_own_name)

    def _maps(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c _ _"]:
        maps: Tensor = self.backbone(image)["out"]
        *layers, _ = self.classifier
        for layer in layers:
            maps = layer(maps)
        return maps


def _backbone_name(published: str) -> str | None:
    return None if published.startswith("fc.") else published


def _own_name(published: str) -> str | None:
    return None if published.startswith("aux_classifier.") else published


def _whole(spec: DeepLabV3) -> Any:
    """torchvision's network, drawn from PyTorch's generator; nothing is downloaded."""
    from torchvision.models import segmentation

    make: Any = getattr(segmentation, f"deeplabv3_{spec.backbone}")
    network: nn.Module = make(weights=None, weights_backbone=None, num_classes=spec.outputs, aux_loss=False)
    return network
