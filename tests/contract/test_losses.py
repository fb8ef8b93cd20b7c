"""Every loss of the union equals its formula, ignores invalid pixels and is finite at the extremes."""

from typing import get_args

import numpy as np
import pytest
import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fissura.losses import BCE, AnyLoss, Dice, DiceBCE

LOSSES = (
    BCE(),
    Dice(),
    Dice(smooth=0.01, over="image"),
    DiceBCE(),
    DiceBCE(dice_weight=0.3, bce_weight=2.0, smooth=5.0, over="image"),
)
Maps = Float[np.ndarray, "b 1 h w"]


def literal_bce(logits: Maps, target: Maps, valid: Maps) -> float:
    total, pixels = 0.0, 0
    for z, g, v in zip(logits.flat, target.flat, valid.flat, strict=True):
        if v:
            p = 1 / (1 + np.exp(-z))
            total -= g * np.log(p) + (1 - g) * np.log(1 - p)
            pixels += 1
    return total / pixels


def literal_dice(logits: Maps, target: Maps, valid: Maps, *, smooth: float, over: str) -> float:
    def coefficient(z: Maps, g: Maps, v: Maps) -> float:
        p = 1 / (1 + np.exp(-z[v == 1]))
        return float((2 * np.sum(p * g[v == 1]) + smooth) / (np.sum(p) + np.sum(g[v == 1]) + smooth))

    if over == "batch":
        return 1 - coefficient(logits, target, valid)
    return 1 - float(np.mean([coefficient(*maps) for maps in zip(logits, target, valid, strict=True)]))


def literal(loss: AnyLoss, logits: Maps, target: Maps, valid: Maps) -> float:
    if isinstance(loss, BCE):
        return literal_bce(logits, target, valid)
    dice = literal_dice(logits, target, valid, smooth=loss.smooth, over=loss.over)
    if isinstance(loss, Dice):
        return dice
    return loss.dice_weight * dice + loss.bce_weight * literal_bce(logits, target, valid)


@pytest.fixture
def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and valid pixels of three images, float64; the second image has no crack."""
    target = (rng.random((3, 1, 6, 5)) < 0.3).astype(np.float64)
    target[1] = 0
    logits = rng.normal(scale=3, size=target.shape)
    valid = (rng.random(target.shape) < 0.8).astype(np.float64)
    return torch.from_numpy(logits), torch.from_numpy(target), torch.from_numpy(valid)


def test_every_kind_is_examined() -> None:
    assert {type(loss) for loss in LOSSES} == set(get_args(get_args(AnyLoss)[0]))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
class TestEveryLoss:
    def test_is_its_formula(self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        expected = literal(loss, *(maps.numpy() for maps in batch))
        assert loss.build()(*batch).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)

    def test_has_the_gradient_of_its_value(self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, target, valid = batch
        module = loss.build()
        assert torch.autograd.gradcheck(lambda z: module(z, target, valid), (logits.requires_grad_(),))

    @pytest.mark.parametrize("nonsense", [1e4, float("inf"), float("nan")])
    def test_invalid_pixels_count_for_nothing(
        self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor], nonsense: float
    ) -> None:
        logits, target, valid = batch
        module = loss.build()
        disturbed = torch.where(valid == 1, logits, nonsense).requires_grad_()
        value = module(disturbed, torch.where(valid == 1, target, 1 - target), valid)
        value.backward()
        assert value.item() == module(logits, target, valid).item()
        assert torch.all(disturbed.grad[valid == 0] == 0)
        assert torch.any(disturbed.grad[valid == 1] != 0)

    @pytest.mark.parametrize("crack", [0.0, 1.0], ids=["empty mask", "full mask"])
    @pytest.mark.parametrize("valid", [0.0, 1.0], ids=["all invalid", "all valid"])
    @pytest.mark.parametrize("logit", [-50.0, 0.0, 50.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_is_finite_at_the_extremes(
        self, loss: AnyLoss, crack: float, valid: float, logit: float, dtype: torch.dtype
    ) -> None:
        shape = (2, 1, 4, 4)
        logits = torch.full(shape, logit, dtype=dtype, requires_grad=True)
        value = loss.build()(logits, torch.full(shape, crack), torch.full(shape, valid))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
        if valid == 0:
            assert value == 0
            assert torch.all(logits.grad == 0)

    def test_a_right_answer_costs_less_than_a_wrong_one(
        self, loss: AnyLoss, batch: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        _, target, valid = batch
        module, certain = loss.build(), 20 * (2 * target - 1)
        assert module(certain, target, valid) < 0.01
        assert module(-certain, target, valid) > 0.5

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_is_computed_in_float32_under_autocast(self, loss: AnyLoss, dtype: torch.dtype) -> None:
        # 300 000 pixels: their sum is past the largest float16, and a bfloat16 cannot count them.
        logits = torch.randn(1, 1, 500, 600).to(dtype)
        target, valid = (torch.rand(2, 1, 1, 500, 600) < 0.9).float()
        module = loss.build()
        with torch.autocast("cpu", dtype=dtype):
            value = module(logits, target, valid)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(
            module(logits.double(), target.double(), valid.double()).item(), rel=1e-4
        )

    def test_survives_its_plain_form(self, loss: AnyLoss) -> None:
        assert TypeAdapter(AnyLoss).validate_python(loss.plain()) == loss


def test_over_the_batch_an_empty_image_does_not_dominate() -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, 2] = 1
    logits, valid = torch.where(target == 1, 20.0, -3.0), torch.ones_like(target)
    batch, image = (Dice(over=over).build()(logits, target, valid) for over in ("batch", "image"))
    assert batch < 0.6 * image


def test_a_loss_that_weighs_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="make one of them positive"):
        DiceBCE(dice_weight=0, bce_weight=0)
