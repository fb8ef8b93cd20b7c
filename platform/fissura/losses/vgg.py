"""The loss of VGG-UNet: what a trained VGG19 sees in the prediction and in the labels (Mosinska et al.,
*Beyond the pixel-wise loss for topology-aware delineation*, CVPR 2018)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from fissura.core.paper import Paper
from fissura.core.pretrained import HubFile, Pretrained, fill, starting_tensors
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision

FIELD = "loss.weights"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256)} | dict.fromkeys(
    (12, 14, 16), (256, 256)
)
"""Channels of VGG19's first convolutions, by the number of each in the published list of its layers."""

READ = (2, 7, 16)
"""conv1_2, conv2_2 and conv3_4, whose rectified maps are compared; the first two are pooled after it."""


class VGG(LossSpec):
    """The topology term of VGG-UNet; add it to BCE with a small weight, the paper's mu: 0.1.

    `weights` is `imagenet`, the path of a .safetensors file with a VGG19 as published, or `none`: random
    ones, the same in every training. That is another loss, for tests and comparisons: the published one sees
    what a network has learnt of lines and corners. They are not trained, and no checkpoint holds them.
    """

    paper: ClassVar[Paper | None] = Paper("Mosinska et al.", "CVPR", 2018)
    kind: Literal["vgg"] = "vgg"
    weights: str = Field("imagenet", min_length=1, max_length=4096)

    @property
    def weights_wanted(self) -> tuple[Pretrained, ...]:
        """VGG19."""
        return (self,)

    def hub_file(self) -> HubFile:
        """The published ImageNet weights; the file that the encoder `vgg19` starts from."""
        revision = "2853d00d7bca364dbb98be4d6afa347e5aeec1f6"
        return HubFile("vgg19", "smp-hub/vgg19.imagenet", revision, "BSD-3-Clause", field=FIELD)

    def build(self) -> "VGGLoss":
        """The loss as a module.

        Raises:
            WeightsError: the weights cannot be had or do not fit.
        """
        return VGGLoss(_beginning_of_vgg19(self))


class VGGLoss(SegmentationLoss):
    """`L = N/|V| sum_n mean (phi_n(g) - phi_n(p))^2`, and 0 where V is empty; the means are over a map's
    elements.

    phi_n   the maps of VGG19 after the ReLU of conv1_2, conv2_2 and conv3_4
    p, g    probability, the sigmoid of the logit, and label; 0 where invalid; the same in all three colours
    N, |V|  pixels of the batch, and the valid ones, which alone can differ

    Reading: p and g are normalised as ImageNet's images are; of two re-implementations one does so.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # buffers, not parameters: nothing trains or saves them
        for name, tensor in network.state_dict().items():
            self.register_buffer(name.replace(".", "_"), tensor, persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        v = valid.to(z.dtype)
        with torch.autocast(z.device.type, enabled=False):
            predicted = self.maps(z.sigmoid() * v)
            with torch.no_grad():
                labelled = self.maps(target.to(z.dtype) * v)
            costs = [(a - b).square().mean() for a, b in zip(labelled, predicted, strict=True)]
        return torch.stack(costs).sum() / v.mean().clamp(min=1 / v.numel())

    def maps(self, x: Float[Tensor, "b 1 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """phi_n of values 0..1; the gradient goes through."""
        read = []
        current = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        for number in CONVOLUTIONS:
            weight, bias = (
                self.get_buffer(f"features_{number}_{part}").to(x.dtype) for part in ("weight", "bias")
            )
            current = relu(conv2d(current, weight, bias, padding=1))
            if number in READ:
                read.append(current)
                current = max_pool2d(current, 2) if number != READ[-1] else current
        return read


def _beginning_of_vgg19(spec: VGG) -> nn.Module:
    """VGG19 up to conv3_4, with the weights of `spec`; draws none of the training's random numbers."""
    layers = {
        str(number): nn.Conv2d(inputs, outputs, 3, device="meta").to_empty(device="cpu")
        for number, (inputs, outputs) in CONVOLUTIONS.items()
    }
    network = nn.ModuleDict({"features": nn.ModuleDict(layers)})
    tensors = starting_tensors(spec, field=FIELD)
    if tensors is not None:
        known = network.state_dict().keys()
        fill(
            network,
            tensors,
            source=spec.weights,
            own_name=lambda name: name if name in known else None,
            field=FIELD,
        )
        return network
    generator = torch.Generator().manual_seed(0)
    for layer in layers.values():
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.get_parameter("bias"))
    return network
