"""A phase's optimizer and its schedule of learning rates."""

from collections.abc import Set
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from fissura.core.spec import Spec
from fissura.training.decay_groups import decay_groups

Parameters = list[torch.nn.Parameter]
Published = Set[torch.nn.Parameter]
"""The parameters of a network that published weights fill; may be empty."""


class Adam(Spec):
    """Adam (Kingma and Ba, 2015)."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(0.0, ge=0, le=1)

    def build(self, parameters: Parameters, *, published: Published = frozenset()) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; one fused kernel a step on a GPU."""
        fused = parameters[0].is_cuda
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=fused)


class AdamW(Spec):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019) of kernels and matrices only:
    scales, shifts and biases have none.

    Where published weights fill a part of the network, the other parameters learn at `new_factor` times the
    rate.
    """

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(0.01, ge=0, le=1)
    new_factor: float = Field(1.0, gt=0, le=1000)

    def build(self, parameters: Parameters, *, published: Published = frozenset()) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; a group with rate `lr`, if any, comes first. One fused kernel a
        step on a GPU."""
        new = [parameter for parameter in parameters if published and parameter not in published]
        old = [parameter for parameter in parameters if not published or parameter in published]
        groups = [
            {**group, "lr": lr}
            for own, lr in ((old, self.lr), (new, self.lr * self.new_factor))
            for group in decay_groups(own, weight_decay=self.weight_decay)
        ]
        return torch.optim.AdamW(groups, lr=self.lr, fused=parameters[0].is_cuda)


class SGD(Spec):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(1e-3, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)

    def build(self, parameters: Parameters, *, published: Published = frozenset()) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; one fused kernel a step on a GPU."""
        fused = parameters[0].is_cuda
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused
        )


class Nesterov(Spec):
    """Stochastic gradient descent with Nesterov's momentum."""

    kind: Literal["nesterov"] = "nesterov"
    lr: float = Field(1e-2, gt=0, le=10)
    momentum: float = Field(0.99, gt=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)

    def build(self, parameters: Parameters, *, published: Published = frozenset()) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; one fused kernel a step on a GPU."""
        return torch.optim.SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
            fused=parameters[0].is_cuda,
        )


AnyOptimizer = Annotated[Adam | AdamW | Nesterov | SGD, Field(discriminator="kind")]

Schedule = torch.optim.lr_scheduler.LRScheduler
Stepped = Literal["step", "epoch", "validation"]
"""When a schedule is stepped: with the optimizer, or at the end of an epoch, without its validation loss or
with it."""


class ConstantRate(Spec):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"
    stepped: ClassVar[Stepped] = "epoch"

    def build(self, _: torch.optim.Optimizer, *, epochs: int, steps: int = 1) -> Schedule | None:
        """No scheduler."""
        return None


class Plateau(Spec):
    """The learning rate is multiplied by `factor` when the validation loss is flat for `patience` epochs."""

    kind: Literal["plateau"] = "plateau"
    stepped: ClassVar[Stepped] = "validation"
    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(3, ge=0)

    def build(self, optimizer: torch.optim.Optimizer, *, epochs: int, steps: int = 1) -> Schedule:
        """The scheduler; its step takes the validation loss."""
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=self.factor, patience=self.patience
        )


class Cosine(Spec):
    """The learning rate falls to zero along half a cosine over the phase."""

    kind: Literal["cosine"] = "cosine"
    stepped: ClassVar[Stepped] = "epoch"

    def build(self, optimizer: torch.optim.Optimizer, *, epochs: int, steps: int = 1) -> Schedule:
        """The scheduler, stepped once an epoch."""
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


class Decay(Spec):
    """The learning rate is multiplied by `factor` after each `steps` steps of the optimizer."""

    kind: Literal["decay"] = "decay"
    stepped: ClassVar[Stepped] = "step"
    factor: float = Field(0.9, gt=0, lt=1)
    steps: int = Field(500, ge=1, le=10_000_000)

    def build(self, optimizer: torch.optim.Optimizer, *, epochs: int, steps: int = 1) -> Schedule:
        """The scheduler, stepped with the optimizer."""
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=self.steps, gamma=self.factor)


class Polynomial(Spec):
    """The learning rate falls to zero over the phase as `(1 - t)^power`, where t is the share of its steps
    that are done; over the first `warm_up` steps it rises linearly to that."""

    kind: Literal["polynomial"] = "polynomial"
    stepped: ClassVar[Stepped] = "step"
    power: float = Field(0.9, gt=0, le=10)
    warm_up: int = Field(0, ge=0, le=10_000_000)

    def build(self, optimizer: torch.optim.Optimizer, *, epochs: int, steps: int = 1) -> Schedule:
        """The scheduler over `epochs` epochs of `steps` steps, stepped with the optimizer."""

        def share(step: int) -> float:
            # a training resumed with another number of workers may have a step more
            decayed: float = max(0.0, 1 - step / (epochs * steps)) ** self.power
            return decayed * min(1.0, (step + 1) / (self.warm_up + 1))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


AnySchedule = Annotated[ConstantRate | Plateau | Cosine | Decay | Polynomial, Field(discriminator="kind")]
