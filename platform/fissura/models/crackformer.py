"""CrackFormer-II: an encoder and a decoder of self-attention blocks of linear cost (Liu et al., TITS 2023).

EB  bottleneck block, in place of a convolution         TF  self-attention and a small network within it
h   channels within a block, a quarter of the wider side's

All normalisation is by groups of 4 channels; GELU is the exact one.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import ClassVar, Literal, NoReturn

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, softmax

from fissura.core.errors import WeightsError
from fissura.core.paper import Paper
from fissura.models.blocks import he_initialise, max_pool_placed, max_unpool
from fissura.models.side_outputs import SideOutputSegmenter
from fissura.models.weights import ModelSpec, fill, starting_tensors

HEADS, KEYS, WINDOW, GROUP = 4, 16, 7, 4


class CrackFormer(ModelSpec):
    """Version II of the network. Version I (ICCV 2021) is not here: the public repository holds only the
    network of II, and the paper of I does not specify its blocks, so that it cannot be rebuilt.

    `width` is the number of channels at full resolution, 64 in the paper; stages have 1, 2, 4, 8 and 8 times
    as many. Narrower ones keep 4 heads of 16 keys; groups have gcd(4, channels) channels. `dropout`
    acts within each block in training. `weights` is `none` or the path of a .safetensors file that a run of
    the same network kept.

    Layers of the published code that nothing reads are left out: the third block of the lower encoder stages,
    which run their second one twice, and a normalisation in every block. Readings: side maps weigh 1 each, as
    the fused map does; up-sampling is bilinear without alignment of corners.
    """

    paper: ClassVar[Paper | None] = Paper("Liu et al.", "CrackFormer-II, TITS", 2023)
    kind: Literal["crackformer"] = "crackformer"
    width: int = Field(64, ge=16, le=256, multiple_of=16)
    dropout: float = Field(0.3, ge=0, lt=1)

    def build(self) -> "CrackFormerNetwork":
        """The network; see `ModelSpec.build`."""
        tensors = starting_tensors(self)
        network = CrackFormerNetwork(self)
        if tensors is not None:
            fill(network, tensors, source=self.weights)
        return network

    def hub_file(self) -> NoReturn:
        """Refuses: there are no ImageNet weights of this network."""
        raise WeightsError(
            "`model.weights: imagenet`: CrackFormer-II was never trained on ImageNet; "
            "set `model.weights` to none, or `model.kind` to backbone_unet"
        )


def _normalised(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // gcd(GROUP, channels), channels)


def _linear(inputs: int, outputs: int, *, bias: bool) -> nn.Sequential:
    """A 1x1 convolution, group normalisation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=bias), _normalised(outputs))


class LambdaAttention(nn.Module):
    """Self-attention of n pixels in which each head applies a linear function of its own to a pixel's query:

    `out[head, v, n] = sum_k Q[head, k, n] ( sum_m K[k, m] V[v, m] + (P[k] * V[v])[n] )`

    Q, K, V  normalised 1x1 convolutions of the maps, K then a softmax over all pixels
    P        a learned window of 7x7 for each of 16 keys, the same for all values v, with which V is filtered
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = _linear(channels, HEADS * KEYS, bias=False)
        self.key = _linear(channels, KEYS, bias=False)
        self.value = _linear(channels, channels // HEADS, bias=False)
        self.positions = nn.Parameter(torch.randn(KEYS, 1, WINDOW, WINDOW))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The attended maps."""
        query = torch.unflatten(self.query(maps), 1, (HEADS, KEYS)).flatten(3)
        key, value = self.key(maps).flatten(2), self.value(maps)
        # one pixel's share among 65,536 is below the resolution of half precision
        with torch.autocast(maps.device.type, enabled=False):
            content = torch.einsum("bkn,bvn->bkv", softmax(key.float(), dim=2), value.flatten(2).float())
        around = conv2d(value.flatten(0, 1).unsqueeze(1), self.positions, padding=WINDOW // 2)
        around = torch.unflatten(around, 0, value.shape[:2]).flatten(3)
        attended = torch.einsum("bhkn,bkv->bhvn", query, content.to(query.dtype))
        attended = attended + torch.einsum("bhkn,bvkn->bhvn", query, around)
        return torch.unflatten(attended.flatten(1, 2), 2, maps.shape[2:])


class AttentionBottleneck(nn.Module):
    """EB: narrowed to h channels, TF, widened again, and the input added: `x += attention(x)`, `x += mlp(x)`
    between two 1x1 convolutions."""

    def __init__(self, inputs: int, outputs: int, *, dropout: float) -> None:
        super().__init__()
        hidden = max(inputs, outputs) // 4
        least = hidden // 4
        self.narrow = nn.Sequential(_linear(inputs, hidden, bias=False), nn.GELU())
        self.attention = LambdaAttention(hidden)
        self.mlp = nn.Sequential(
            _linear(hidden, least, bias=True),
            nn.Conv2d(least, least, 3, padding=1, groups=least // gcd(GROUP, least)),
            _normalised(least),
            nn.GELU(),
            nn.Dropout(dropout),
            _linear(least, hidden, bias=True),
            nn.Dropout(dropout),
        )
        self.widen = nn.Sequential(nn.GELU(), _linear(hidden, outputs, bias=False), nn.GELU())
        self.shortcut = nn.Identity() if inputs == outputs else _linear(inputs, outputs, bias=True)

    def forward(self, maps: Float[Tensor, "b inputs h w"]) -> Float[Tensor, "b outputs h w"]:
        """The features."""
        x = self.narrow(maps)
        x = x + self.attention(x)
        x = x + self.mlp(x)
        return gelu(self.widen(x) + self.shortcut(maps))


class Stage(nn.Module):
    """Blocks in sequence, the last of them run `last_runs` times; `widths` are the channels between them."""

    def __init__(self, *widths: int, dropout: float, last_runs: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            AttentionBottleneck(inputs, outputs, dropout=dropout) for inputs, outputs in pairwise(widths)
        )
        self._last_runs = last_runs

    def forward(self, maps: Float[Tensor, "b inputs h w"]) -> list[Float[Tensor, "b _ h w"]]:
        """The output of each block in turn."""
        outputs: list[Tensor] = []
        for block in (*self.blocks, *[self.blocks[-1]] * (self._last_runs - 1)):
            outputs.append(block(outputs[-1] if outputs else maps))
        return outputs


class GatedSide(nn.Module):
    """One stage's part of the outputs: its last encoder and decoder maps, convolved, times a mask computed
    from the first `gated` maps of both (the scaling attention)."""

    def __init__(self, stage: int, joined: int, outputs: int, *, gated: int) -> None:
        super().__init__()
        self._gated = gated
        self.mask = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(stage, outputs, 3, padding=1),
            _normalised(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            _normalised(outputs),
            nn.Sigmoid(),
        )
        self.join = nn.Sequential(nn.Conv2d(joined, outputs, 3, padding=1), nn.ReLU(inplace=True))

    def forward(self, down: Sequence[Tensor], up: Sequence[Tensor]) -> Float[Tensor, "b outputs h w"]:
        """The gated maps of a stage that gave `down` in the encoder and `up` in the decoder."""
        first, *others = *down[: self._gated], *up[: self._gated]
        for maps in others:
            first = first + maps
        gated: Tensor = self.join(torch.cat((down[-1], up[-1]), dim=1)) * self.mask(first)
        return gated


class CrackFormerNetwork(SideOutputSegmenter):
    """The features are the gated maps of the first stage, beside the side maps of the four lower ones; the
    head fuses those with the first stage's own side map. Side maps, at full size: the stages' from the first.
    """

    def __init__(self, spec: CrackFormer) -> None:
        w, drop = spec.width, spec.dropout
        to_side_logits = [nn.Conv2d(w, 1, 3, padding=1) for _ in range(5)]
        super().__init__(to_side_logits, weights=[1.0] * 5, align_corners=False)
        self.stride = 32
        self.stem = nn.Sequential(nn.Conv2d(3, w, 3, padding=1), nn.ReLU(inplace=True))
        self.encoder = nn.ModuleList(
            (
                Stage(w, w, dropout=drop),
                Stage(w, 2 * w, 2 * w, dropout=drop),
                Stage(2 * w, 4 * w, 4 * w, dropout=drop, last_runs=2),
                Stage(4 * w, 8 * w, 8 * w, dropout=drop, last_runs=2),
                Stage(8 * w, 8 * w, 8 * w, dropout=drop, last_runs=2),
            )
        )
        self.decoder = nn.ModuleList(
            (
                Stage(w, w, w, dropout=drop),
                Stage(2 * w, 2 * w, w, dropout=drop),
                Stage(4 * w, 4 * w, 4 * w, 2 * w, dropout=drop),
                Stage(8 * w, 8 * w, 8 * w, 4 * w, dropout=drop),
                Stage(8 * w, 8 * w, 8 * w, 8 * w, dropout=drop),
            )
        )
        self.sides = nn.ModuleList(
            GatedSide(stage * w, joined * w, w, gated=gated)
            for stage, joined, gated in ((1, 2, 1), (2, 3, 1), (4, 6, 2), (8, 12, 2), (8, 16, 2))
        )
        he_initialise(self)

    def scales(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _ _"]]:
        """The gated maps of each stage."""
        maps = self.stem(image)
        down: list[list[Tensor]] = []
        pooled: list[Tensor] = []
        for stage in self.encoder:
            down.append(stage(maps))
            maps, places = max_pool_placed(down[-1][-1])
            pooled.append(places)
        gated: list[Tensor] = []
        for level in reversed(range(len(down))):
            up = self.decoder[level](max_unpool(maps, pooled[level]))
            maps = up[-1]
            gated.insert(0, self.sides[level](down[level], up))
        return gated
