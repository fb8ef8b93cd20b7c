"""The interface of segmentation losses: one number from logits, labels and the mask of valid pixels, and the
maps that a loss may need beside them, which generic code carries for it and never reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Num
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.core.pretrained import Pretrained
from fissura.core.spec import Spec

ImageMaps = Mapping[int, Num[np.ndarray, "h w"]]
"""One map for each training image, in the size of its mask, by the image's number."""

BatchMaps = Mapping[str, Float[Tensor, "b 1 h w"]]
"""A loss's own maps of a batch, by name."""

Predict = Callable[[nn.Module], Iterator[tuple[int, Float32[np.ndarray, "h w"]]]]
"""Runs the network with another head (features [b, c, h, w] to logits [b, 1, h, w]) over each training image,
as the recipe's inference does; yields each image's number and its map of sigmoids."""


class SegmentationLoss(nn.Module, ABC):
    """A loss of crack logits. Pixels with `valid` = 0 count for nothing; their gradient is exactly zero."""

    @abstractmethod
    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch; `target` (1 = crack) and `valid` hold only 0 and 1."""


class Criterion(nn.Module):
    """A loss as a phase minimises it; this one reads the crack logits and nothing else.

    One that reads more of the network overrides `reads` and `readings`, and may hold heads of its own, which
    are trained with the network and dropped after the phase; it has a `side_loss`, too. One that changes from
    epoch to epoch overrides `begin_epoch`, one that leaves something to later phases `finish_phase`.
    """

    reads: int = 0
    """Tensors that `readings` gives."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def readings(self, features: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """What the loss reads of the network beside the logits, image by image."""
        return ()

    def forward(
        self,
        outputs: tuple[Tensor, ...],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """The loss of a whole batch; `outputs` are the logits and the readings. `maps` are those of
        `LossSpec.maps`; in validation there are none."""
        loss: Tensor = self.loss(*outputs, target, valid)
        return loss

    def side_loss(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """The loss of a side map: logits of the mask that a network may give in training beside the crack
        logits, at any one size, and without readings. A loss with readings overrides it."""
        if self.reads:
            raise NotImplementedError(
                f"{type(self).__name__}: a loss with `readings` has a `side_loss` of its own"
            )
        loss: Tensor = self((logits,), target, valid, maps)
        return loss

    def begin_epoch(self, number: int) -> None:
        """Called before each epoch of training; `number` counts the epochs of the phase from 0."""

    def finish_phase(self, predict: Predict) -> dict[str, ImageMaps]:
        """The maps that a finished phase leaves to later ones; those that `LossSpec.leaves` names."""
        return {}


class LossSpec(Spec):
    """Base of every loss: `build` gives the `SegmentationLoss`, and a loss of logits needs nothing more.

    A loss that reads or keeps more has a `criterion` of its own. What its phase leaves is kept in the run as
    `NAME.safetensors`, so a name must not be that of another file there.
    """

    paper: ClassVar[Paper | None] = None
    """Where the loss was published; None where it has no single source."""

    def build(self) -> nn.Module:
        """The loss as a module."""
        raise NotImplementedError(f"{type(self).__name__}: a loss has `build`, or a `criterion` of its own")

    def criterion(self, feature_channels: int) -> Criterion:
        """What a phase minimises, on a network with `feature_channels` feature maps."""
        return Criterion(self.build())

    @property
    def leaves(self) -> frozenset[str]:
        """Names of the maps that its phase leaves to later ones."""
        return frozenset()

    @property
    def needs(self) -> dict[str, str]:
        """Names of the maps that an earlier phase must have left, and the kind of loss that leaves each."""
        return {}

    @property
    def weights_wanted(self) -> tuple[Pretrained, ...]:
        """The loss's own networks that need pretrained weights or a file of them."""
        return ()

    def maps(self, left: Mapping[str, ImageMaps], masks: ImageMaps) -> dict[str, ImageMaps]:
        """The loss's own maps of each training image, by name, from those that it `needs` and the masks (1
        crack). They are cropped, flipped and turned with the mask, and are 0 beyond the image."""
        return {}


def full_precision(
    logits: Float[Tensor, "b 1 h w"], valid: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """The logits in at least float32 (sums over an image overflow float16); 0 where invalid, even if NaN."""
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return torch.where(valid > 0, wide, 0.0)
