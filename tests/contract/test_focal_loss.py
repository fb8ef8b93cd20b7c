"""The focal loss: hard pixels count most, weights that underflow still weigh, and what each gradient does."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fissura.losses import Focal


def focal(loss: Focal, logits: list[float], target: list[int]) -> tuple[float, Tensor]:
    """The loss of one row of pixels, float32, and its gradient."""
    z = torch.tensor(logits).view(1, 1, 1, -1).requires_grad_()
    cost = loss.build()(z, torch.tensor(target, dtype=torch.float32).view(1, 1, 1, -1), torch.ones_like(z))
    cost.backward()
    assert z.grad is not None
    return cost.item(), z.grad.flatten()


def test_with_gamma_0_each_half_is_the_plain_mean_of_its_class() -> None:
    cost, _ = focal(Focal(alpha=3, gamma=0), [0.0, 0.0, 0.0, 0.0], [1, 0, 0, 0])
    assert cost == pytest.approx((1 + 3) * 0.6931472)


def test_a_larger_gamma_brings_each_half_nearer_to_its_hardest_pixel() -> None:
    costs = [focal(Focal(alpha=0, gamma=gamma), [-2.0, 1.0, 4.0], [1, 1, 1])[0] for gamma in (0, 1, 4, 100)]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(2.126928, rel=1e-5)


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_without_a_pixel_costs_nothing(label: int) -> None:
    cost, _ = focal(Focal(alpha=3), [0.0, 0.0], [label, label])
    assert cost == pytest.approx((1 if label else 3) * 0.6931472)


@pytest.mark.parametrize("normaliser", ["constant", "differentiated"])
def test_weights_that_all_underflow_still_weigh_the_pixels(normaliser: str) -> None:
    # (1 - p)^100 is exp(-4000) and less; of these weights the first is all but the whole
    cost, gradient = focal(Focal(gamma=100, normaliser=normaliser), [40.0, 41.0, 50.0], [1, 1, 1])
    assert cost == pytest.approx(4.2483543e-18, rel=1e-5)
    assert torch.isfinite(gradient).all()
    assert gradient[0] < 0


@pytest.mark.parametrize("gamma", [0.0, 2.0, 100.0])
@pytest.mark.parametrize("normaliser", ["constant", "differentiated"])
def test_wide_ranges_of_logits_are_finite(gamma: float, normaliser: str) -> None:
    logits = [-50.0, 0.0, 50.0, -50.0, 0.0, 50.0]
    cost, gradient = focal(Focal(gamma=gamma, normaliser=normaliser), logits, [1, 1, 1, 0, 0, 0])
    assert 0 < cost < 300
    assert torch.isfinite(gradient).all()


class TestOneHardPixelAmongEasyOnes:
    LOGITS, LABELS = (-3.0, 2.0, 2.0, 3.0), (1, 1, 1, 1)

    def test_the_value_does_not_depend_on_the_normaliser(self) -> None:
        costs = {
            focal(Focal(normaliser=normaliser), [*self.LOGITS], [*self.LABELS])[0]
            for normaliser in ("constant", "differentiated")
        }
        assert len(costs) == 1

    def test_constant_weights_push_every_pixel_towards_its_label(self) -> None:
        _, gradient = focal(Focal(normaliser="constant"), [*self.LOGITS], [*self.LABELS])
        assert (gradient < 0).all()

    def test_differentiated_weights_push_the_easy_ones_away_from_it(self) -> None:
        _, gradient = focal(Focal(), [*self.LOGITS], [*self.LABELS])
        assert gradient[0] < 0
        assert (gradient[1:] > 0).all()

    def test_and_that_is_the_gradient_of_the_formula(self) -> None:
        before, gradient = focal(Focal(), [*self.LOGITS], [*self.LABELS])
        easier, _ = focal(Focal(), [self.LOGITS[0], 2.5, 2.5, 3.0], [*self.LABELS])
        assert easier > before
        assert gradient[1] == pytest.approx((easier - before) / 2 / 0.5, rel=0.5)


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"gamma": -1}, {"gamma": 101}, {"normaliser": "none"}])
def test_what_is_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Focal(**wrong)
