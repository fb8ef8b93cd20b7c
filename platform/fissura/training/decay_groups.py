"""Weight decay of some parameters only."""

from collections.abc import Sequence
from typing import Any

from torch import nn


def decay_groups(parameters: Sequence[nn.Parameter], *, weight_decay: float) -> list[dict[str, Any]]:
    """An optimizer's groups of these parameters, none of them empty: scales, shifts and biases without weight
    decay, then kernels and matrices with it."""
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    groups = ((vectors, 0.0), (matrices, weight_decay))
    return [{"params": own, "weight_decay": decay} for own, decay in groups if own]
