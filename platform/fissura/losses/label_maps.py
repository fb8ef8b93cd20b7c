"""Losses that read a map of the labels, computed on the CPU once an image and cropped and turned with its
mask."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from fissura.losses.loss import BatchMaps, Criterion, ImageMaps, LossSpec


class LabelMapSpec(LossSpec):
    """Base of these losses: `build` gives a module of logits, labels, valid pixels and the map `map_name`,
    which `of_mask` computes."""

    map_name: ClassVar[str]
    map_type: ClassVar[type[np.generic]]
    """The dtype in which the training keeps the map."""

    @abstractmethod
    def of_mask(self, mask: UInt8[np.ndarray, "h w"]) -> Num[np.ndarray, "h w"]:
        """The map of a mask (1 crack)."""

    def criterion(self, feature_channels: int) -> "LabelMapCriterion":
        """The loss with its map."""
        return LabelMapCriterion(self)

    def maps(self, left: Mapping[str, ImageMaps], masks: ImageMaps) -> dict[str, ImageMaps]:
        """The map of each training image, from its whole mask."""
        maps = {index: self.of_mask(np.array(mask)).astype(self.map_type) for index, mask in masks.items()}
        return {self.map_name: maps}


class LabelMapCriterion(Criterion):
    """Gives the loss its map."""

    def __init__(self, spec: LabelMapSpec) -> None:
        super().__init__(spec.build())
        self._spec = spec

    def forward(
        self,
        outputs: tuple[Tensor, ...],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """See `Criterion.forward`; without a map, as in validation, it is computed from the valid labels."""
        label_map = maps[self._spec.map_name] if self._spec.map_name in maps else self._map(target, valid)
        loss: Tensor = self.loss(*outputs, target, valid, label_map)
        return loss

    def _map(
        self, target: Float[Tensor, "b 1 h w"], valid: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        masks = ((target > 0) & (valid > 0))[:, 0].to(torch.uint8).cpu().numpy()
        label_map = np.stack([self._spec.of_mask(mask) for mask in masks])[:, None]
        return torch.from_numpy(label_map).to(target)
