"""A recipe: the complete, frozen description of one training and of how its result is judged."""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from fissura.core.spec import Spec, digest
from fissura.data.pipeline import Pipeline
from fissura.losses import AnyLoss
from fissura.metrics import AnyProtocol
from fissura.models import AnyModel

Parameters = list[torch.nn.Parameter]


class Adam(Spec):
    """Adam (Kingma and Ba, 2015)."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(0.0, ge=0, le=1)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; one fused kernel a step on a GPU."""
        fused = parameters[0].is_cuda
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=fused)


class SGD(Spec):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(1e-3, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; one fused kernel a step on a GPU."""
        fused = parameters[0].is_cuda
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=fused
        )


AnyOptimizer = Annotated[Adam | SGD, Field(discriminator="kind")]


class Constant(Spec):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"

    def build(self, _: torch.optim.Optimizer, *, epochs: int) -> torch.optim.lr_scheduler.LRScheduler | None:
        """No scheduler."""
        return None


class Plateau(Spec):
    """The learning rate is multiplied by `factor` when the validation loss is flat for `patience` epochs."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(3, ge=0)

    def build(self, optimizer: torch.optim.Optimizer, *, epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The scheduler; its step takes the validation loss."""
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=self.factor, patience=self.patience
        )


class Cosine(Spec):
    """The learning rate falls to zero along half a cosine over the phase."""

    kind: Literal["cosine"] = "cosine"

    def build(self, optimizer: torch.optim.Optimizer, *, epochs: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The scheduler, stepped once an epoch."""
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)


AnySchedule = Annotated[Constant | Plateau | Cosine, Field(discriminator="kind")]


class Phase(Spec):
    """A stretch of training with one loss, one optimizer and one schedule.

    `early_stopping` is the number of epochs without a lower validation loss after which the phase ends;
    None: never.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    loss: AnyLoss
    optimizer: AnyOptimizer = Adam()
    schedule: AnySchedule = Constant()
    epochs: int = Field(ge=1, le=100_000)
    early_stopping: int | None = Field(None, ge=1)


class Recipe(Spec):
    """Everything that decides a training: the same recipe, data and seed give the same weights on the same
    machine.

    `precision` "mixed" is automatic mixed precision on a GPU; a CPU always computes in float32. `protocols`
    are those the result is judged by; the first one also judges each epoch.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    data: Pipeline = Pipeline()
    model: AnyModel
    phases: tuple[Phase, ...] = Field(min_length=1)
    precision: Literal["float32", "mixed"] = "mixed"
    protocols: tuple[AnyProtocol, ...] = Field(min_length=1)
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _phases_have_names_of_their_own(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"each phase needs a name of its own, got {names}")
        return self

    @property
    def epochs(self) -> int:
        """Epochs of all phases together, if none stops early."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def configuration(self) -> str:
        """A digest of all but the seed: what a leaderboard row stands for."""
        return digest({**self.plain(), "seed": None})

    def run_id(self, content: str) -> str:
        """The name of the run of this recipe on data of this content digest; equal runs have equal names."""
        return digest({"recipe": self.plain(), "content": content})[:12]
