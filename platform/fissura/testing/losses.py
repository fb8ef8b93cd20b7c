"""What every segmentation loss is held to: its formula, its gradient, invalid pixels, extremes, precision,
and that it falls on the way to the labels and knows no direction."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fissura.losses import (
    VGG,
    AmbiguityAware,
    AnyLoss,
    Clustering,
    Focal,
    LossSpec,
    PersistentTopology,
    RobustDice,
    RobustT,
    WeightedSum,
)
from fissura.losses.clustering import AMBIGUOUS
from fissura.testing.formulas import focal_gradient, formula_of

HALVES = (torch.float16, torch.bfloat16)
PREFERS, FALLS, KNOWS = "prefers_right_logits", "falls_all_the_way_to_the_labels", "knows_no_direction"
TURNS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda maps: maps.flip(2),
    lambda maps: maps.flip(3),
    lambda maps: maps.transpose(2, 3),
)


@dataclass(frozen=True)
class LossCase:
    """A loss and what is known of it.

    `formula` takes NumPy arrays: the logits, what the loss `reads` beside them, labels, valid pixels, and its
    own `maps`, by their names; each map holds 0 and 1.
    `gradient` gives the gradient of the logits where it is not that of the value. `right_costs` is what sure
    and right logits may cost; None where they may cost anything. `excused` names the checks that the loss
    need not pass, each with the reason. `large` is the size of the image that is computed in half precision.
    """

    loss: LossSpec
    formula: Callable[..., float]
    reads: tuple[Literal["log_variance", "features"], ...] = ()
    maps: tuple[str, ...] = ()
    gradient: Callable[..., Tensor] | None = None
    right_costs: float | None = 0.01
    excused: Mapping[str, str] = field(default_factory=dict)
    large: tuple[int, int] = (500, 600)


def case_of(loss: AnyLoss) -> LossCase:
    """The case of one of the project's losses."""
    match loss:
        case AmbiguityAware():  # a variance costs something too
            return LossCase(loss, formula_of(loss), reads=("log_variance",), right_costs=None)
        case Clustering():  # and so do pixels unlike their neighbours
            return LossCase(loss, formula_of(loss), reads=("features",), maps=(AMBIGUOUS,), right_costs=None)
        case RobustT():  # minus the logarithm of a density, whose constant depends on nu
            return LossCase(loss, formula_of(loss), right_costs=None)
        case RobustDice(gamma=gamma) if gamma < 1.5:
            why = "where the background fades, p^2 in the denominator falls faster than the error"
            return LossCase(loss, formula_of(loss), excused={FALLS: why})
        case PersistentTopology():
            excused = {FALLS: "a pair that appears may cost more than one that is missing"}
            if loss.patch < max(drawn_batch().target.shape[2:]):
                excused[KNOWS] = "patches are cut from the top left corner"
            if loss.compares != "components":
                excused[PREFERS] = "a wrong mask may have as many holes as the right one"
            return LossCase(loss, formula_of(loss), excused=excused, large=(125, 150))
        case VGG():
            why = "the filters of a network tell left from right"
            return LossCase(loss, formula_of(loss), excused={KNOWS: why}, large=(80, 96))
        case WeightedSum():
            return sum_case(loss)
        case Focal(normaliser="constant"):
            return LossCase(loss, formula_of(loss), gradient=partial(focal_gradient, loss=loss))
        case _:
            return LossCase(loss, formula_of(loss))


def sum_case(loss: WeightedSum) -> LossCase:
    """The case of a sum, from those of its terms, whose gradients must be those of their values."""
    cases = {term.name: case_of(term.loss) for term in loss.terms}
    right = [case.right_costs for case in cases.values()]
    return LossCase(
        loss,
        formula_of(loss),
        reads=tuple(read for case in cases.values() for read in case.reads),
        maps=tuple(f"{name}.{own}" for name, case in cases.items() for own in case.maps),
        right_costs=None if None in right else 0.01 * sum(term.weight for term in loss.terms),
        excused={check: why for case in cases.values() for check, why in case.excused.items()},
        large=min(case.large for case in cases.values()),
    )


class LossInputs(NamedTuple):
    """All that any loss reads; `target`, `valid` and `ambiguous`, its map of any name, hold only 0 and 1."""

    logits: Float[Tensor, "b 1 h w"]
    target: Float[Tensor, "b 1 h w"]
    valid: Float[Tensor, "b 1 h w"]
    log_variance: Float[Tensor, "b 1 h w"]
    features: Float[Tensor, "b 3 h w"]
    ambiguous: Float[Tensor, "b 1 h w"]

    def of(self, case: LossCase) -> tuple[Tensor, ...]:
        """What the loss of `case` reads, in the order of its formula."""
        maps = (self.ambiguous,) * len(case.maps)
        return (*self.outputs(case), self.target, self.valid, *maps)

    def outputs(self, case: LossCase) -> tuple[Tensor, ...]:
        """What it reads of a network: logits and readings."""
        beside = {"log_variance": self.log_variance, "features": self.features}
        return (self.logits, *(beside[name] for name in case.reads))

    def to(self, dtype: torch.dtype) -> "LossInputs":
        """What a network gives in `dtype`."""
        return self._replace(
            logits=self.logits.to(dtype),
            log_variance=self.log_variance.to(dtype),
            features=self.features.to(dtype),
        )

    def turned(self, turn: Callable[[Tensor], Tensor]) -> "LossInputs":
        """All maps, turned."""
        return LossInputs(*map(turn, self))

    def disturbed(self, nonsense: float) -> "LossInputs":
        """Other labels, and `nonsense`, where pixels are invalid."""
        kept = self.valid == 1
        return LossInputs(
            torch.where(kept, self.logits, nonsense),
            torch.where(kept, self.target, 1 - self.target),
            self.valid,
            torch.where(kept, self.log_variance, nonsense),
            torch.where(kept, self.features, nonsense),
            torch.where(kept, self.ambiguous, 1 - self.ambiguous),
        )


def beside(
    logits: Tensor, target: Tensor, valid: Tensor, *, ambiguous: float = 0.3, seed: int = 0
) -> LossInputs:
    """A batch, with drawn values beside its maps; the share `ambiguous` of the pixels is ambiguous."""
    b, _, h, w = logits.shape
    draw = torch.Generator().manual_seed(seed)
    chosen = (torch.rand(b, 1, h, w, generator=draw) < ambiguous).float()
    log_variance = 0.5 * torch.randn(b, 1, h, w, generator=draw)
    features = torch.randn(b, 3, h, w, generator=draw)
    return LossInputs(logits, target, valid, log_variance, features, chosen).to(logits.dtype)


def drawn_batch(seed: int = 0) -> LossInputs:
    """Three images of 6 x 5 pixels in float64; the second has no crack."""
    rng = np.random.default_rng(seed)
    target = (rng.random((3, 1, 6, 5)) < 0.3).astype(np.float64)
    target[1] = 0
    logits = rng.normal(scale=3, size=target.shape)
    valid = (rng.random(target.shape) < 0.8).astype(np.float64)
    return beside(*map(torch.from_numpy, (logits, target, valid)))


def value(case: LossCase, batch: LossInputs) -> Tensor:
    """The loss of a batch."""
    criterion = case.loss.criterion(batch.features.shape[1])
    maps = dict.fromkeys(case.maps, batch.ambiguous)
    loss: Tensor = criterion(batch.outputs(case), batch.target, batch.valid, maps)
    return loss


def is_its_formula(case: LossCase) -> None:
    """Its value is that of the formula, in float64."""
    batch = drawn_batch()
    expected = case.formula(*(maps.numpy() for maps in batch.of(case)))
    assert math.isclose(value(case, batch).item(), expected, rel_tol=1e-6, abs_tol=1e-9)


def has_the_gradient_of_its_value(case: LossCase) -> None:
    """Its gradient is that of its value by differences along random directions, or the one that the case
    states."""
    batch = drawn_batch()
    logits = batch.logits.clone().requires_grad_()
    if case.gradient is not None:
        (gradient,) = torch.autograd.grad(value(case, batch._replace(logits=logits)), logits)
        torch.testing.assert_close(gradient, case.gradient(logits, *batch.of(case)[1:]))
    else:
        check = torch.autograd.gradcheck
        assert check(lambda z: value(case, batch._replace(logits=z)), (logits,), fast_mode=True)


def counts_no_invalid_pixel(case: LossCase) -> None:
    """Whatever stands at invalid pixels changes neither value nor gradient."""
    batch = drawn_batch()
    for nonsense in (1e4, math.inf, math.nan):
        disturbed = batch.disturbed(nonsense)
        logits = disturbed.logits.clone().requires_grad_()
        cost = value(case, disturbed._replace(logits=logits))
        (gradient,) = torch.autograd.grad(cost, logits)
        assert cost.item() == value(case, batch).item(), nonsense
        assert torch.all(gradient[batch.valid == 0] == 0), nonsense
        assert torch.any(gradient[batch.valid == 1] != 0), nonsense


def is_finite_at_the_extremes(case: LossCase) -> None:
    """Empty and full masks, no valid pixel, logits of 50, and half precision have a finite loss."""
    shape = (2, 1, 4, 4)
    extremes = itertools.product((0.0, 1.0), (0.0, 1.0), (-50.0, 0.0, 50.0), (torch.float32, *HALVES))
    for extreme in extremes:
        crack, valid, logit, dtype = extreme
        logits = torch.full(shape, logit, dtype=dtype, requires_grad=True)
        cost = value(case, beside(logits, torch.full(shape, crack), torch.full(shape, valid)))
        (gradient,) = torch.autograd.grad(cost, logits)
        assert torch.isfinite(cost), extreme
        assert torch.isfinite(gradient).all(), extreme
        assert valid or (cost == 0 and torch.all(gradient == 0)), extreme


def prefers_right_logits(case: LossCase) -> None:
    """Sure and right logits cost less than sure and wrong ones."""
    batch = drawn_batch()
    sure = 20 * (2 * batch.target - 1)
    right, wrong = (value(case, batch._replace(logits=z)) for z in (sure, -sure))
    assert wrong > right + 0.5
    assert case.right_costs is None or right < case.right_costs


def is_computed_in_float32_under_autocast(case: LossCase) -> None:
    """Of many pixels: 300,000 have a sum past the largest float16, and a bfloat16 cannot count them."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, *case.large, generator=draw)
    target, valid = (torch.rand(2, 1, 1, *case.large, generator=draw) < 0.9).float()
    for dtype in HALVES:
        batch = beside(logits.to(dtype), target, valid, ambiguous=0.01)
        with torch.autocast("cpu", dtype=dtype):
            cost = value(case, batch)
        assert cost.dtype == torch.float32
        wide = batch.to(torch.float64)._replace(target=target.double(), valid=valid.double())
        assert math.isclose(cost.item(), value(case, wide).item(), rel_tol=1e-4), dtype


def falls_all_the_way_to_the_labels(case: LossCase) -> None:
    """The value falls when every probability moves to its label. Other maps may cost as little: all ones
    under clDice, none of a thin crack under `boundary` on the crack, another mask under `topology`."""
    batch = drawn_batch()
    p, y = batch.logits.sigmoid(), batch.target
    moved = (torch.logit(p + share * (y - p)).clamp(-60, 60) for share in (0.0, 0.1, 0.3, 0.6, 0.9, 1.0))
    costs = [value(case, batch._replace(logits=logits)).item() for logits in moved]
    assert costs == sorted(costs, reverse=True), costs
    assert costs[0] > costs[1]


def knows_no_direction(case: LossCase) -> None:
    """The value is that of the mirrored and of the turned batch."""
    batch = drawn_batch()
    expected = value(case, batch).item()
    for turn in TURNS:
        assert math.isclose(value(case, batch.turned(turn)).item(), expected, rel_tol=1e-9)


def survives_its_plain_form(case: LossCase) -> None:
    """The spec comes back from JSON types."""
    assert type(case.loss).load(case.loss.plain(), source="its plain form") == case.loss


LOSS_CHECKS: tuple[Callable[[LossCase], None], ...] = (
    is_its_formula,
    has_the_gradient_of_its_value,
    counts_no_invalid_pixel,
    is_finite_at_the_extremes,
    prefers_right_logits,
    is_computed_in_float32_under_autocast,
    falls_all_the_way_to_the_labels,
    knows_no_direction,
    survives_its_plain_form,
)


def check_loss(case: LossCase) -> None:
    """Holds a loss to all checks but those that it is excused from.

    Raises:
        AssertionError: of the first that does not hold.
    """
    for check in LOSS_CHECKS:
        if check.__name__ not in case.excused:
            check(case)
