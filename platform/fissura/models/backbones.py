"""Backbones that turn an image into one feature vector: timm's networks, and the preprocessing they need."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fissura.core.errors import WeightsError
from fissura.models.weights import HubFile, ModelSpec, fill, starting_tensors

BackboneName = Literal["vgg16", "resnet50", "mobilenet_v3", "efficientnet_lite"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, RGB, in 0..1


@dataclass(frozen=True)
class BackboneSource:
    """Where a backbone comes from.

    `library_name` names the network in timm and its published weights on the hub, under `licence`;
    `after_pooling` are the modules after the global average pooling, which are left out; `dimensions` is the
    width of its features.
    """

    library_name: str
    licence: str
    after_pooling: tuple[str, ...]
    dimensions: int


BACKBONES: Mapping[BackboneName, BackboneSource] = {
    "vgg16": BackboneSource("vgg16.tv_in1k", "BSD-3-Clause", ("pre_logits", "head"), 512),
    "resnet50": BackboneSource("resnet50.tv_in1k", "BSD-3-Clause", ("fc",), 2048),
    "mobilenet_v3": BackboneSource(
        "mobilenetv3_large_100.ra_in1k", "Apache-2.0", ("conv_head", "classifier"), 960
    ),
    "efficientnet_lite": BackboneSource("efficientnet_lite0.ra_in1k", "Apache-2.0", ("classifier",), 1280),
}


class Backbone(ModelSpec):
    """VGG16, ResNet50, MobileNetV3-Large or EfficientNet-Lite0, and the size of the images that it sees.

    `weights` is `imagenet`, `none` (random), the path of a .safetensors file, or `trained` / `distilled`:
    trained on the user's own images (`classification.backbone`), whose file the caller of `build` gives.
    `input_size` is the side of the square, in pixels, that an image of any size is resized to.
    """

    kind: BackboneName
    weights: str = Field("imagenet", min_length=1, max_length=4096)
    input_size: int = Field(224, ge=32, le=1024)

    @property
    def dimensions(self) -> int:
        """The width d of the features."""
        return BACKBONES[self.kind].dimensions

    def hub_file(self) -> HubFile:
        """The published ImageNet weights."""
        source = BACKBONES[self.kind]
        return HubFile(
            self.kind, f"timm/{source.library_name}", "main", source.licence, field="backbone.weights"
        )

    def build(self, weights: str | Path | None = None) -> "FeatureNetwork":  # type: ignore[override]
        """The network in eval mode, drawn from PyTorch's generator where its weights are `none`.

        Args:
            weights: overrides the spec's `weights`, for example with the file of a trained backbone.

        Raises:
            WeightsError: the weights cannot be had or do not fit; `trained` or `distilled` without a file.
        """
        chosen = self.model_copy(update={"weights": self.weights if weights is None else str(weights)})
        if chosen.weights in ("trained", "distilled"):
            raise WeightsError(
                f"`backbone.weights: {chosen.weights}` is a file that a training on the user's images"
                " writes, and none was given; train the backbone first, or set `backbone.weights` to"
                " imagenet, none or a path"
            )
        tensors = starting_tensors(chosen)
        network = FeatureNetwork(self)
        if tensors is not None:
            network.load(tensors, source=chosen.weights)
        return network.to(memory_format=torch.channels_last).eval()


class FeatureNetwork(nn.Module):
    """A backbone with its preprocessing: images of any size in, features out; `body` holds all its tensors.

    The features are the global averages of the last convolution's maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Backbone) -> None:
        super().__init__()
        self.spec = spec
        self.dimensions, self.input_size = spec.dimensions, spec.input_size
        self.body = _body(spec.kind)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """The features of RGB images 0..255 of any one size."""
        return self.embed(self.normalised(self.resized(images)))

    def resized(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """The images resized to the backbone's size, 0..1."""
        return resized(images, size=self.input_size)

    def normalised(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """Pixels 0..1 less ImageNet's mean, over its standard deviation."""
        return (pixels - self.mean) / self.std

    def embed(self, normalised: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """The features of normalised images."""
        maps = self.body.forward_features(normalised.contiguous(memory_format=torch.channels_last))
        features: Tensor = maps.float().mean((2, 3))
        return features

    def load(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Takes the published weights, with or without a classifier, or a trained backbone's `body`.

        Raises:
            WeightsError: they do not fit; `source` names the file.
        """
        left_out = tuple(f"{module}." for module in BACKBONES[self.spec.kind].after_pooling)
        fill(
            self.body,
            tensors,
            source=source,
            own_name=lambda name: None if name.startswith(left_out) else name,
        )


def resized(images: UInt8[Tensor, "b h w 3"], *, size: int) -> Float[Tensor, "b 3 size size"]:
    """Images resized to squares, 0..1: bilinear, antialiased where they shrink."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    return interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def _body(kind: BackboneName) -> Any:
    """timm's network without the modules after the pooling."""
    import timm

    name = BACKBONES[kind].library_name.partition(".")[0]
    if kind == "vgg16":  # a narrow head: drawing its own 120 million weights would take seconds
        body = timm.create_model(name, pretrained=False, num_classes=0, mlp_ratio=1 / 4096)
    else:
        body = timm.create_model(name, pretrained=False)
    for module in BACKBONES[kind].after_pooling:
        delattr(body, module)
    return body
