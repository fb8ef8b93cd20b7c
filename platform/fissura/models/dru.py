"""DRU: a U-Net that runs a few times, with a gated unit at its bottom (Wang et al., ICCV 2019).

s   the mask that the previous step predicted, a probability; 0 everywhere before the first step
e   the pooled features of the last encoder level        h   the unit's state, kept from step to step
"""

from math import gcd
from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import UpBlock, he_initialise
from fissura.models.segmenter import Segmenter, SideMap
from fissura.models.weights import ModelSpec, fill, starting_tensors

LEVELS, GROUPS = 4, 8
Unit = Literal["dual", "single"]
Last = Literal["relu", "linear"]


class DRU(ModelSpec):
    """The recurrent U-Net: each of `steps` passes reads the image and the mask of the previous pass, and a
    gated unit replaces the U-Net's lowest level. All steps share all weights.

    `width` is the number of channels at full resolution, doubled by each of the four pooling steps; the
    unit's state has 16 times as many. Published are 32 and, for few resources, 8, both with 3 steps.
    `unit` is `dual` with the gate that hides features from the candidate state, and `single` without it, the
    paper's SRU. `step_weight` is the paper's alpha: the loss of a step that k steps follow weighs its k-th
    power. `weights` is `none` or the path of a .safetensors file that a run of the same network kept.

    `gates` is the function between the last normalisation and a gate's sigmoid or a state's tanh: `relu` in
    the published code, so that each gate is at least half open and no state below 0; or `linear`, none.

    Readings: the first mask is 0 and the first state 1 (the published code feeds the logits back, the first
    of them 1); the gradient passes through the mask; group normalisation has gcd(8, channels) groups.
    """

    paper: ClassVar[Paper | None] = Paper("Wang et al.", "ICCV", 2019)
    kind: Literal["dru"] = "dru"
    width: int = Field(32, ge=2, le=256)
    unit: Unit = "dual"
    gates: Last = "relu"
    steps: int = Field(3, ge=1, le=8)
    step_weight: float = Field(0.4, gt=0, le=1)

    def build(self) -> "DRUNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = DRUNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: the recurrent U-Net was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


def _pair(inputs: int, outputs: int, *, last: Last) -> nn.Sequential:
    """Two padded 3x3 convolutions, each with group normalisation and a ReLU, the last one as `last` says."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1))
        layers.append(nn.GroupNorm(gcd(GROUPS, outputs), outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers) if last == "relu" else nn.Sequential(*layers[:-1])


class RecurrentUnit(nn.Module):
    """`h' = (1 - z) h + z tanh(C(r e))` with `r = sigmoid(R(e))` and `z = sigmoid(Z(e))`; R, Z and C are two
    3x3 convolutions each. A single unit has r = 1.

    e has `channels` maps, h twice as many.
    """

    def __init__(self, channels: int, *, unit: Unit, gates: Last) -> None:
        super().__init__()
        self.reset = _pair(channels, channels, last=gates) if unit == "dual" else None
        self.update = _pair(channels, 2 * channels, last=gates)
        self.candidate = _pair(channels, 2 * channels, last=gates)

    def forward(self, e: Float[Tensor, "b c h w"], h: Float[Tensor, "..."]) -> Float[Tensor, "b 2*c h w"]:
        """The new state; `h` is the old one, or one number for all of it."""
        read = e if self.reset is None else torch.sigmoid(self.reset(e)) * e
        z = torch.sigmoid(self.update(e))
        state: Tensor = (1 - z) * h + z * torch.tanh(self.candidate(read))
        return state


class DRUNetwork(Segmenter):
    """The features are those of the last decoder level in the last step; side maps are the crack logits of
    the steps before it."""

    def __init__(self, spec: DRU) -> None:
        super().__init__()
        self.stride = 2**LEVELS
        self.feature_channels = spec.width
        self.side_maps = tuple(
            SideMap("mask", spec.step_weight**following) for following in range(spec.steps - 1, 0, -1)
        )
        widths = [spec.width * 2**level for level in range(LEVELS)]
        self.encoder = nn.ModuleList(
            _pair(inputs, outputs, last="relu") for inputs, outputs in zip((4, *widths), widths, strict=False)
        )
        self.unit = RecurrentUnit(widths[-1], unit=spec.unit, gates=spec.gates)
        self.decoder = nn.ModuleList(
            UpBlock(2 * width, width, width, normalisation="none") for width in reversed(widths)
        )
        self.to_logits = nn.Conv2d(spec.width, 1, 1)
        he_initialise(self)

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The output of the last decoder block in the last step."""
        return self.with_side_maps(image)[0]

    def head(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """A 1x1 convolution."""
        logits: Tensor = self.to_logits(features)
        return logits

    def with_side_maps(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], tuple[Float[Tensor, "b 1 h w"], ...]]:
        """The features, and the crack logits of each step but the last."""
        features, h = self._step(image, torch.zeros_like(image[:, :1]), image.new_ones(()))
        earlier: list[Tensor] = []
        for _ in self.side_maps:
            earlier.append(self.head(features))
            features, h = self._step(image, torch.sigmoid(earlier[-1]), h)
        return features, tuple(earlier)

    def _step(
        self, image: Float[Tensor, "b 3 h w"], s: Float[Tensor, "b 1 h w"], h: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b state h/16 w/16"]]:
        """The features and the new state of one step."""
        e = torch.cat((image, s), dim=1)
        levels: list[Tensor] = []
        for block in self.encoder:
            levels.append(block(e))
            e = max_pool2d(levels[-1], 2)
        h = self.unit(e, h)
        current = h
        for block in self.decoder:
            current = block(current, levels.pop())
        return current, h
