"""What a phase minimises: the network, what its loss needs beside it, and the loss, as one module.

Data-parallel training wraps the whole, so that a head which only one phase has is trained with the rest.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fissura.losses import AmbiguityAware, AnyLoss, Clustering
from fissura.models import Segmenter

Maps = Float[Tensor, "b 1 h w"]


class PhaseObjective(nn.Module, ABC):
    """`model` is the network, which outlives the phase; the rest ends with it."""

    def __init__(self, model: Segmenter, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    @abstractmethod
    def outputs(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """What the loss reads of the network, image by image: the crack logits first."""

    @abstractmethod
    def loss_of(
        self, outputs: tuple[Tensor, ...], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> Float[Tensor, ""]:
        """The loss of a whole batch, from its outputs, computed in float32; `ambiguous` is read by
        clustering alone."""

    def forward(
        self, image: Float[Tensor, "b 3 h w"], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> tuple[Float[Tensor, ""], Maps]:
        """The loss, and the crack logits that it is of."""
        outputs = self.outputs(image)
        with torch.autocast(image.device.type, enabled=False):
            return self.loss_of(outputs, target, valid, ambiguous), outputs[0]


class PlainObjective(PhaseObjective):
    """A loss of logits alone."""

    def outputs(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.model(image).float(),)

    def loss_of(
        self, outputs: tuple[Tensor, ...], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> Float[Tensor, ""]:
        """See `Objective.loss_of`."""
        loss: Tensor = self.loss(*outputs, target, valid)
        return loss


class AmbiguityObjective(PhaseObjective):
    """Phase I of CIRL: the std head, a 1x1 convolution of the features, gives each pixel's log variance."""

    def __init__(self, model: Segmenter, loss: nn.Module) -> None:
        super().__init__(model, loss)
        self.std_head = nn.Conv2d(model.feature_channels, 1, 1)

    def outputs(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """The logits and the log variances."""
        features = self.model.features(image)
        return self.model.head(features).float(), self.std_head(features).float()

    def loss_of(
        self, outputs: tuple[Tensor, ...], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> Float[Tensor, ""]:
        """See `Objective.loss_of`."""
        loss: Tensor = self.loss(*outputs, target, valid)
        return loss


class ClusteringObjective(PhaseObjective):
    """Phase II of CIRL: the features of ambiguous pixels say which of them belong together."""

    def outputs(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """The logits and the features."""
        features = self.model.features(image)
        return self.model.head(features).float(), features

    def loss_of(
        self, outputs: tuple[Tensor, ...], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> Float[Tensor, ""]:
        """See `Objective.loss_of`; without `ambiguous`, as in validation, no pixel is."""
        unclear = torch.zeros_like(target) if ambiguous is None else ambiguous
        loss: Tensor = self.loss(*outputs, target, valid, unclear)
        return loss


class VarianceView(Segmenter):
    """A trained Phase I seen as a network whose logit is the log variance: the probability map that inference
    makes of it is sigma^2 / (1 + sigma^2)."""

    def __init__(self, objective: AmbiguityObjective) -> None:
        super().__init__()
        self._model, self._std_head = objective.model, objective.std_head
        self.stride, self.feature_channels = objective.model.stride, objective.model.feature_channels

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The network's own features."""
        return self._model.features(image)

    def head(self, features: Float[Tensor, "b c h w"]) -> Maps:
        """The log variance."""
        log_variance: Tensor = self._std_head(features)
        return log_variance


def objective_of(model: Segmenter, loss: AnyLoss) -> PhaseObjective:
    """The objective that `loss` makes of a network."""
    if isinstance(loss, AmbiguityAware):
        return AmbiguityObjective(model, loss.build())
    if isinstance(loss, Clustering):
        return ClusteringObjective(model, loss.build())
    return PlainObjective(model, loss.build())
