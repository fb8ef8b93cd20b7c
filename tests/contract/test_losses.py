"""Every loss of the union equals its formula, ignores invalid pixels and is finite at the extremes."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fissura.losses import (
    BCE,
    VGG,
    AmbiguityAware,
    AnyLoss,
    BalancedBCE,
    Boundary,
    Clustering,
    Dice,
    DiceBCE,
    Focal,
    FocalTversky,
    LinFocal,
    MarginlessBCE,
    OhemBCE,
    PersistentTopology,
    Poly,
    RobustDice,
    RobustT,
    SkeletonRecall,
    SoftClDice,
    Term,
    Tversky,
    WeightedBCE,
    WeightedSum,
)
from fissura.testing.losses import LOSS_CHECKS, LossCase, case_of, drawn_batch, value

LOSSES = (
    BCE(),
    Dice(),
    Dice(smooth=0.01, over="image"),
    DiceBCE(),
    DiceBCE(dice_weight=0.3, bce_weight=2.0, smooth=5.0, over="image"),
    Focal(),
    Focal(alpha=0.5, gamma=4.0, normaliser="constant"),
    AmbiguityAware(),
    AmbiguityAware(distance="kl"),
    Clustering(k=3),
    Clustering(k=2, beta=1.5, term="exact"),
    Clustering(term="nnclr", temperature=0.5),
    MarginlessBCE(),
    WeightedBCE(),
    WeightedBCE(cap=1.5),
    WeightedBCE(crack_weight=0.3),
    BalancedBCE(),
    BalancedBCE(background=0.5),
    OhemBCE(),
    OhemBCE(least_kept=20),
    OhemBCE(threshold=0.4, least_kept=1),
    LinFocal(),
    LinFocal(alpha=None, gamma=0.5),
    Poly(),
    Poly(epsilon=-1),
    Poly(base="focal", gamma=1.5, epsilon=3),
    Tversky(),
    Tversky(fp=0.8, fn=0.1, smooth=0.01),
    FocalTversky(),
    FocalTversky(gamma=0.75, smooth=0.01),
    RobustDice(),
    RobustDice(gamma=1),
    RobustDice(gamma=2, smooth=1),
    RobustT(),
    RobustT(nu=30, per="image"),
    SoftClDice(iterations=2),
    SoftClDice(a=0.9),
    SkeletonRecall(),
    Boundary(),
    Boundary(contour="on_crack", clip=1.2),
    PersistentTopology(),
    PersistentTopology(patch=4, compares="both", least_persistence=0.1),
    PersistentTopology(compares="holes"),
    VGG(weights="none"),
    WeightedSum(),
    WeightedSum(
        terms=(
            Term(name="ce", loss=BCE()),
            Term(name="recall", loss=SkeletonRecall()),
            Term(name="contour", weight=0.01, loss=Boundary()),
            Term(name="tail", weight=0.3, loss=RobustT()),
        )
    ),
    WeightedSum(
        terms=(
            Term(name="focal", weight=0.7, loss=Focal()),
            Term(name="both", weight=0.2, loss=DiceBCE(bce_weight=3.0)),
            Term(name="doubt", weight=1.5, loss=AmbiguityAware()),
            Term(name="clusters", loss=Clustering(k=3)),
        )
    ),
)


def test_every_kind_is_examined() -> None:
    assert {type(loss) for loss in LOSSES} == set(get_args(get_args(AnyLoss)[0]))


HELD_TO = [
    pytest.param(loss, check, id=f"{loss!r}-{check.__name__}")
    for loss in LOSSES
    for check in LOSS_CHECKS
    if check.__name__ not in case_of(loss).excused
]


@pytest.mark.parametrize(("loss", "check"), HELD_TO)
def test_every_loss(loss: AnyLoss, check: Callable[[LossCase], None]) -> None:
    check(case_of(loss))


EXCUSED = [
    pytest.param(loss, check, id=f"{loss!r}-{check.__name__}")
    for loss in LOSSES
    for check in LOSS_CHECKS
    if check.__name__ in case_of(loss).excused and not isinstance(loss, WeightedSum)
]


@pytest.mark.parametrize(("loss", "check"), EXCUSED)
def test_each_excuse_is_needed(loss: AnyLoss, check: Callable[[LossCase], None]) -> None:
    with pytest.raises(AssertionError):
        check(case_of(loss))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_the_union_reads_each_plain_form(loss: AnyLoss) -> None:
    assert TypeAdapter(AnyLoss).validate_python(loss.plain()) == loss


class Wrong(torch.nn.Module):
    """A loss of any formula."""

    def __init__(self, formula: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._formula = formula

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        return self._formula(*maps)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        ("is_its_formula", lambda z, g, v: (z**2).mean()),
        ("counts_no_invalid_pixel", lambda z, g, v: (z - g).square().mean()),
        ("is_finite_at_the_extremes", lambda z, g, v: -((z.sigmoid() * v).sum() / v.sum()).log()),
        ("prefers_right_logits", lambda z, g, v: 0 * z.sum()),
        ("is_computed_in_float32_under_autocast", lambda z, g, v: z.mean()),
        ("falls_all_the_way_to_the_labels", lambda z, g, v: (z.sigmoid() - 0.5).square().mean()),
        ("knows_no_direction", lambda z, g, v: (z.cumsum(2) * v).mean()),
    ],
)
def test_a_check_sees_a_loss_that_breaks_it(
    check: str, wrong: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {one.__name__: one for one in LOSS_CHECKS}
    monkeypatch.setattr(BCE, "build", lambda _: Wrong(wrong))
    with pytest.raises(AssertionError):
        named[check](case_of(BCE()))


def test_a_check_sees_a_gradient_that_is_not_of_the_value() -> None:
    detached = LossCase(Focal(normaliser="constant"), case_of(Focal()).formula)
    with pytest.raises((AssertionError, RuntimeError)):
        LOSS_CHECKS[1](detached)


def test_the_drawn_batch_has_an_image_without_a_crack_and_invalid_pixels() -> None:
    batch = drawn_batch()
    assert batch.target.sum((1, 2, 3)).gt(0).tolist() == [True, False, True]
    assert 0 < batch.valid.mean() < 1


def test_over_the_batch_an_empty_image_does_not_dominate() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, 2] = 1
    logits, valid = torch.where(target == 1, 20.0, -3.0), torch.ones_like(target)
    batch, image = (Dice(over=over).build()(logits, target, valid) for over in ("batch", "image"))
    assert batch < 0.6 * image


@pytest.mark.parametrize(("dice", "bce"), [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0)])
def test_dice_and_bce_are_the_sum_of_the_two_to_the_bit(dice: float, bce: float) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        batch = drawn_batch().to(dtype)
        maps = batch.logits.requires_grad_(), batch.target.float(), batch.valid.float()
        literal = dice * Dice(over="image").build()(*maps) + bce * BCE().build()(*maps)
        (expected,) = torch.autograd.grad(literal, batch.logits)
        loss = DiceBCE(dice_weight=dice, bce_weight=bce, over="image")
        for spec in (loss, loss.sum):
            cost = value(case_of(spec), batch._replace(target=maps[1], valid=maps[2]))
            assert cost.item() == literal.item()
            assert torch.equal(*torch.autograd.grad(cost, batch.logits), expected)


@pytest.mark.parametrize(
    ("terms", "rule"),
    [
        (
            (Term(name="one", weight=0, loss=BCE()), Term(name="two", weight=0, loss=Dice())),
            "all weights are 0",
        ),
        ((Term(name="one", loss=BCE()), Term(name="one", loss=Dice())), "a name of its own"),
        (
            tuple(Term(name=name, loss=AmbiguityAware()) for name in ("one", "two")),
            "left to later phases by one",
        ),
        ((), "at least 1 item"),
    ],
    ids=["weightless", "twins", "two variances", "empty"],
)
def test_a_sum_that_means_nothing_is_refused(terms: tuple[Term, ...], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        WeightedSum(terms=terms)


def test_a_loss_that_weighs_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="make one of them positive"):
        DiceBCE(dice_weight=0, bce_weight=0)
