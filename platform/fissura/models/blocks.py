"""The blocks that several networks here share."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle

Normalisation = Literal["none", "batch"]


def convolutions(inputs: int, outputs: int, *, count: int, normalisation: Normalisation) -> nn.Sequential:
    """`count` times: a padded 3x3 convolution (without a bias if normalised), batch normalisation or none, a
    ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, *[outputs] * (count - 1)):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=normalisation == "none"))
        if normalisation == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def double_convolution(inputs: int, outputs: int, *, normalisation: Normalisation) -> nn.Sequential:
    """The U-Net's two convolutions."""
    return convolutions(inputs, outputs, count=2, normalisation=normalisation)


VGG16 = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""VGG16's stages: (multiple of the first stage's channels, number of convolutions)."""


def vgg16_stages(width: int) -> nn.ModuleList:
    """VGG16's thirteen convolutions by stages, normalised; `width` channels in the first stage."""
    inputs = (3, *(width * times for times, _ in VGG16))
    return nn.ModuleList(
        convolutions(channels, width * times, count=count, normalisation="batch")
        for channels, (times, count) in zip(inputs, VGG16, strict=False)
    )


class UpBlock(nn.Module):
    """One decoder block: transposed 2x2 convolution of stride 2, the skip concatenated, a double convolution.

    `skip` is the number of channels of the skip; 0 where there is none.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, *, normalisation: Normalisation) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.convolutions = double_convolution(outputs + skip, outputs, normalisation=normalisation)

    def forward(
        self, deep: Float[Tensor, "b inputs h w"], skip: Float[Tensor, "b skip 2*h 2*w"] | None
    ) -> Float[Tensor, "b outputs 2*h 2*w"]:
        """The features one level up."""
        up = self.up(deep)
        joined: Tensor = self.convolutions(up if skip is None else torch.cat((skip, up), dim=1))
        return joined


def he_initialise(module: nn.Module) -> None:
    """Draws all convolutions from He's normal distribution (ICCV 2015, Eq. 10); biases become 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def resized(maps: Float[Tensor, "b c _ _"], *, like: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c h w"]:
    """Maps up-sampled bilinearly to the size of an image."""
    size = like.shape[-2:]
    return maps if maps.shape[-2:] == size else interpolate(maps, size=size, mode="bilinear")


def max_pool_placed(
    maps: Float[Tensor, "b c _ _"],
) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b c h w"]]:
    """The greatest value of each 2x2 window and its place in it: 0, 1 in the upper row, 2, 3 in the lower
    one; of equals the first."""
    windows = torch.unflatten(pixel_unshuffle(maps, 2), 1, (maps.shape[1], 4))
    values, places = windows.max(dim=2)
    return values, places


def max_unpool(
    values: Float[Tensor, "b c h w"], places: Int64[Tensor, "b c h w"]
) -> Float[Tensor, "b c 2*h 2*w"]:
    """Each value at its place in a 2x2 window, 0 at the other three. PyTorch's own unpooling is missing in
    ONNX and not deterministic on a GPU."""
    four = torch.arange(4, device=places.device).view(4, 1, 1)
    windows = torch.where(places.unsqueeze(2) == four, values.unsqueeze(2), 0.0)
    return pixel_shuffle(windows.flatten(1, 2), 2)
