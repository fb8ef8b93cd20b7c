"""Any sum of losses: each term has a name, a weight and a loss of its own."""

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from fissura.core.pretrained import Pretrained
from fissura.core.spec import Spec
from fissura.losses.bce import BCE
from fissura.losses.dice import Dice
from fissura.losses.loss import BatchMaps, Criterion, ImageMaps, LossSpec, Predict

if TYPE_CHECKING:
    from fissura.losses import AnyLoss


class Term(Spec):
    """One loss of a sum and its weight; field paths name it by its `name`.

    `growth` is added to the weight after each epoch of the phase. Validation weighs by `weight` throughout,
    so that its losses can be compared.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    weight: float = Field(1.0, ge=0, le=1e6)
    growth: float = Field(0.0, ge=0, le=1e6)
    loss: "AnyLoss"


def _dice_and_bce() -> tuple[Term, ...]:
    return Term(name="dice", loss=Dice()), Term(name="bce", loss=BCE())


class WeightedSum(LossSpec):
    """The sum of `weight` x `loss` over the terms; by default Dice and BCE."""

    kind: Literal["weighted_sum"] = "weighted_sum"
    terms: tuple[Term, ...] = Field(default_factory=_dice_and_bce, min_length=1)

    @model_validator(mode="after")
    def _terms_have_names_of_their_own(self) -> "WeightedSum":
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"each term needs a name of its own, got {names}")
        return self

    @model_validator(mode="after")
    def _weighs_something(self) -> "WeightedSum":
        if not any(term.weight for term in self.terms):
            raise ValueError("all weights are 0: the loss would be 0; make one of them positive")
        return self

    @model_validator(mode="after")
    def _each_map_is_left_once(self) -> "WeightedSum":
        names = [name for term in self.terms for name in term.loss.leaves]
        if len(set(names)) < len(names):
            raise ValueError(f"a map is left to later phases by one term, got {sorted(names)}")
        return self

    def criterion(self, feature_channels: int) -> "SumCriterion":
        """The terms' criteria, over one network."""
        return SumCriterion(self, feature_channels=feature_channels)

    @property
    def leaves(self) -> frozenset[str]:
        """The maps that any term leaves."""
        return frozenset[str]().union(*(term.loss.leaves for term in self.terms))

    @property
    def needs(self) -> dict[str, str]:
        """The maps that any term needs."""
        return {name: kind for term in self.terms for name, kind in term.loss.needs.items()}

    @property
    def weights_wanted(self) -> tuple[Pretrained, ...]:
        """The networks of all terms that need weights."""
        return tuple(wanted for term in self.terms for wanted in term.loss.weights_wanted)

    def maps(self, left: Mapping[str, ImageMaps], masks: ImageMaps) -> dict[str, ImageMaps]:
        """The maps of all terms, each named `TERM.MAP`."""
        return {
            f"{term.name}.{name}": maps
            for term in self.terms
            for name, maps in term.loss.maps(left, masks).items()
        }


class SumCriterion(Criterion):
    """`L = sum_t (w_t + e r_t) L_t`; the terms share the network's logits and features.

    w, r  a term's weight and growth        e  epochs of the phase that are done; 0 in validation
    """

    def __init__(self, spec: WeightedSum, *, feature_channels: int) -> None:
        criteria = [term.loss.criterion(feature_channels) for term in spec.terms]
        super().__init__(nn.ModuleList(criteria))
        self._terms = tuple(zip(spec.terms, criteria, strict=True))
        self.reads = sum(criterion.reads for criterion in criteria)
        self._epoch = 0

    def readings(self, features: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """The readings of all terms, in order."""
        return tuple(reading for _, criterion in self._terms for reading in criterion.readings(features))

    def begin_epoch(self, number: int) -> None:
        """See `Criterion.begin_epoch`."""
        self._epoch = number
        for _, criterion in self._terms:
            criterion.begin_epoch(number)

    def _weight(self, term: Term) -> float:
        return term.weight + term.growth * self._epoch if self.training else term.weight

    def forward(
        self,
        outputs: tuple[Tensor, ...],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """See `Criterion.forward`."""
        logits, *readings = outputs
        costs = []
        for term, criterion in self._terms:
            own = _maps_of(term.name, maps) if maps else maps
            read, readings = readings[: criterion.reads], readings[criterion.reads :]
            costs.append(self._weight(term) * criterion((logits, *read), target, valid, own))
        total: Tensor = reduce(torch.add, costs)
        return total

    def side_loss(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """The weighted sum of the terms' side losses."""
        costs = [
            self._weight(term) * criterion.side_loss(logits, target, valid, _maps_of(term.name, maps))
            for term, criterion in self._terms
        ]
        return reduce(torch.add, costs)

    def finish_phase(self, predict: Predict) -> dict[str, ImageMaps]:
        """The maps that all terms leave."""
        return {
            name: maps
            for _, criterion in self._terms
            for name, maps in criterion.finish_phase(predict).items()
        }


def _maps_of(term: str, maps: BatchMaps) -> BatchMaps:
    """A term's own maps."""
    prefix = f"{term}."
    return {name.removeprefix(prefix): own for name, own in maps.items() if name.startswith(prefix)}
