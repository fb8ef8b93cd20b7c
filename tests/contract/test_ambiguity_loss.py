"""The ambiguity-aware loss teaches a variance, and the regions are where the paper has them."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError
from torch import Tensor

from fissura.losses import AmbiguityAware, ambiguous_region, marginal_region

DISTANCES = ("wasserstein", "kl")


def cost_and_gradients(
    loss: AmbiguityAware, logit: float, log_variance: float, label: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one pixel, its gradient with respect to the logit, and to the log-variance."""
    z, s = (
        torch.full((1, 1, 1, 1), number, dtype=dtype, requires_grad=True) for number in (logit, log_variance)
    )
    cost = loss.build()(z, s, torch.full((1, 1, 1, 1), label), torch.ones(1, 1, 1, 1))
    cost.backward()
    assert z.grad is not None
    assert s.grad is not None
    return cost.detach(), z.grad.squeeze(), s.grad.squeeze()


@pytest.mark.parametrize("distance", DISTANCES)
class TestBothDistances:
    def test_the_gradient_is_that_of_the_value_for_the_variance_too(
        self, distance: str, rng: np.random.Generator
    ) -> None:
        z, s = torch.from_numpy(rng.normal(scale=3, size=(2, 2, 1, 4, 3))).requires_grad_()
        target, valid = torch.from_numpy((rng.random((2, 2, 1, 4, 3)) < 0.6).astype(np.float64))
        module = AmbiguityAware(distance=distance).build()
        assert torch.autograd.gradcheck(lambda z, s: module(z, s, target, valid), (z, s))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("log_variance", [-100.0, -50.0, 0.0, 50.0, 100.0])
    @pytest.mark.parametrize("logit", [-50.0, 0.0, 50.0])
    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_any_log_variance_is_finite(
        self, distance: str, dtype: torch.dtype, log_variance: float, logit: float, label: float
    ) -> None:
        cost, for_logit, _ = cost_and_gradients(AmbiguityAware(distance=distance), logit, log_variance, label)
        assert torch.isfinite(cost)
        assert torch.isfinite(for_logit)
        # half precision: what the gradient of `kl` comes to at s = -100, 1e17, is past the largest float16
        reachable = max(log_variance, -10.0)
        results = cost_and_gradients(AmbiguityAware(distance=distance), logit, reachable, label, dtype)
        assert all(torch.isfinite(result) for result in results)

    def test_invalid_pixels_give_the_variance_no_gradient(self, distance: str) -> None:
        s = torch.tensor([float("nan"), 1.0]).view(1, 1, 1, 2).requires_grad_()
        valid = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
        AmbiguityAware(distance=distance).build()(torch.zeros(1, 1, 1, 2), s, valid, valid).backward()
        assert s.grad is not None
        assert s.grad.flatten()[0] == 0
        assert s.grad.flatten()[1] != 0

    def test_of_right_answers_the_surest_costs_least(self, distance: str) -> None:
        loss = AmbiguityAware(distance=distance)
        costs = [cost_and_gradients(loss, 20.0, s, 1.0)[0].item() for s in (-20.0, -5.0, 0.0, 2.0)]
        assert costs == sorted(costs)
        assert len(set(costs)) == 4

    def test_of_wrong_answers_the_surest_costs_most(self, distance: str) -> None:
        loss = AmbiguityAware(distance=distance)
        costs = [cost_and_gradients(loss, -20.0, s, 1.0)[0].item() for s in (-20.0, -5.0, -2.0, -0.5)]
        assert costs == sorted(costs, reverse=True)
        assert len(set(costs)) == 4


def test_a_sure_and_right_answer_costs_nothing() -> None:
    assert cost_and_gradients(AmbiguityAware(), 20.0, -50.0, 1.0)[0] < 1e-12


@pytest.mark.parametrize("lam", [0.05, 0.3, 0.9])
def test_the_variance_grows_exactly_where_the_squared_error_exceeds_lambda(lam: float) -> None:
    for error in (0.1, 0.5, 0.97):
        logit = float(np.log(error / (1 - error)))
        _, _, gradient = cost_and_gradients(AmbiguityAware(lam=lam), logit, 0.0, 0.0)
        assert (gradient < 0) == (error**2 > lam)


def test_with_kl_the_best_variance_is_the_squared_error() -> None:
    _, _, gradient = cost_and_gradients(AmbiguityAware(distance="kl"), 0.0, float(np.log(0.25)), 1.0)
    assert gradient.abs() < 1e-7


def test_below_its_floor_kl_still_pulls_a_wrong_answers_variance_up() -> None:
    _, _, gradient = cost_and_gradients(AmbiguityAware(distance="kl"), 0.0, -60.0, 1.0)
    assert gradient < -1e15


@pytest.mark.parametrize("wrong", [{"lam": 0}, {"lam": 10.1}, {"distance": "euclidean"}])
def test_what_is_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AmbiguityAware(**wrong)


masks = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))


class TestRegions:
    @given(mask=masks)
    def test_the_marginal_region_is_opencvs_dilation_less_the_mask(self, mask: np.ndarray) -> None:
        expected = cv2.dilate(mask, np.ones((5, 5), np.uint8)) - mask
        for dtype in (torch.uint8, torch.float32, torch.float16):
            region = marginal_region(torch.from_numpy(mask)[None, None].to(dtype))
            assert region.dtype == dtype
            np.testing.assert_array_equal(region[0, 0].float().numpy(), expected)

    def test_a_lone_crack_pixel_has_24_marginal_ones(self) -> None:
        mask = torch.zeros(2, 1, 9, 9)
        mask[1, 0, 4, 4] = 1
        region = marginal_region(mask)
        assert region[0].sum() == 0
        assert region[1].sum() == 24
        assert region[1, 0, 4, 4] == 0

    @given(mask=masks, gamma=st.floats(0.05, 3), seed=st.integers(0, 2**16))
    def test_ambiguous_is_marginal_with_a_variance_above_gamma(
        self, mask: np.ndarray, gamma: float, seed: int
    ) -> None:
        s = np.random.default_rng(seed).normal(size=mask.shape)
        margin = cv2.dilate(mask, np.ones((5, 5), np.uint8)) - mask
        expected = [
            [int(np.exp(s[i, j]) > gamma and margin[i, j] == 1) for j in range(mask.shape[1])]
            for i in range(mask.shape[0])
        ]
        region = ambiguous_region(
            torch.from_numpy(s)[None, None], torch.from_numpy(mask)[None, None], gamma=gamma
        )
        assert region.dtype == torch.uint8
        np.testing.assert_array_equal(region[0, 0].numpy(), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_any_log_variance_is_judged(self, dtype: torch.dtype) -> None:
        s = torch.tensor([-100.0, 100.0, float("nan")], dtype=dtype).view(1, 1, 1, 3).repeat(1, 1, 2, 1)
        mask = torch.tensor([0, 1], dtype=torch.uint8).view(1, 1, 2, 1).repeat(1, 1, 1, 3)
        assert ambiguous_region(s, mask, gamma=0.4)[0, 0].tolist() == [[0, 1, 0], [0, 0, 0]]
