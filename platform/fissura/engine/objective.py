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


class Objective(nn.Module, ABC):
    """`model` is the network, which outlives the phase; the rest ends with it."""

    def __init__(self, model: Segmenter, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    @abstractmethod
    def forward(
        self, image: Float[Tensor, "b 3 h w"], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> tuple[Float[Tensor, ""], Maps]:
        """The loss, computed in float32, and the crack logits that it is of."""


class PlainObjective(Objective):
    """A loss of logits alone."""

    def forward(
        self, image: Float[Tensor, "b 3 h w"], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> tuple[Float[Tensor, ""], Maps]:
        """See `Objective.forward`; `ambiguous` is not looked at."""
        logits = self.model(image).float()
        with torch.autocast(image.device.type, enabled=False):
            return self.loss(logits, target, valid), logits


class AmbiguityObjective(Objective):
    """Phase I of CIRL: the std head, a 1x1 convolution of the features, gives each pixel's log variance."""

    def __init__(self, model: Segmenter, loss: nn.Module) -> None:
        super().__init__(model, loss)
        self.std_head = nn.Conv2d(model.feature_channels, 1, 1)

    def forward(
        self, image: Float[Tensor, "b 3 h w"], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> tuple[Float[Tensor, ""], Maps]:
        """See `Objective.forward`; `ambiguous` is not looked at."""
        features = self.model.features(image)
        logits, log_variance = self.model.head(features).float(), self.std_head(features).float()
        with torch.autocast(image.device.type, enabled=False):
            return self.loss(logits, log_variance, target, valid), logits


class ClusteringObjective(Objective):
    """Phase II of CIRL: the features of ambiguous pixels say which of them belong together."""

    def forward(
        self, image: Float[Tensor, "b 3 h w"], target: Maps, valid: Maps, ambiguous: Maps | None
    ) -> tuple[Float[Tensor, ""], Maps]:
        """See `Objective.forward`; without `ambiguous`, as in validation, no pixel is."""
        features = self.model.features(image)
        logits = self.model.head(features).float()
        unclear = torch.zeros_like(target) if ambiguous is None else ambiguous
        with torch.autocast(image.device.type, enabled=False):
            return self.loss(logits, features, target, valid, unclear), logits


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


def objective_of(model: Segmenter, loss: AnyLoss) -> Objective:
    """The objective that `loss` makes of a network."""
    if isinstance(loss, AmbiguityAware):
        return AmbiguityObjective(model, loss.build())
    if isinstance(loss, Clustering):
        return ClusteringObjective(model, loss.build())
    return PlainObjective(model, loss.build())
