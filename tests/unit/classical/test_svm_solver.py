"""One support vector machine: against the dual's literal solution, and scikit-learn's over hard settings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.svm import SVC

from fissura.classical.distances import squared_distances
from fissura.classical.kernel_rows import kernel_rows
from fissura.classical.solver import decide, solve

EVERY = np.empty(0, np.int64)


def trained(
    features: np.ndarray,
    target: np.ndarray,
    *,
    bound: float,
    gamma: float,
    tolerance: float = 1e-6,
    slots: int = 10_000,
    start: np.ndarray | None = None,
    limit: int = 10_000_000,
) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Coefficients, intercept, the gap left, and the decisions on the training samples."""
    kernel = kernel_rows(squared_distances(features, dtype=np.float64), order=EVERY, slots=slots)
    segments, factor = np.array([[0, len(target)]]), -gamma / np.log(2)
    beta = np.zeros(len(target)) if start is None else start.copy()
    intercept, gap, _ = solve(
        kernel, factor, segments, target.astype(np.float64), bound, beta, tolerance, limit
    )
    decisions = np.empty(len(target))
    decide(kernel, factor, segments, beta, intercept, 0, decisions)
    return beta, intercept, gap, decisions


def kernel_of(features: np.ndarray, gamma: float) -> np.ndarray:
    return np.exp(-gamma * ((features[:, None] - features) ** 2).sum(axis=2))


def dual(beta: np.ndarray, target: np.ndarray, kernel: np.ndarray) -> float:
    return float(beta @ kernel @ beta / 2 - beta @ target)


def overlapping(rng: np.random.Generator, count: int = 120, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    target = np.where(rng.random(count) < 0.5, 1, -1)
    target[:2] = 1, -1
    return rng.normal(size=(count, width)) + 0.4 * target[:, None], target


def least_dual(target: np.ndarray, kernel: np.ndarray, bound: float) -> float:
    """The dual's minimum by a general method."""
    ends = [(min(0, sign * bound), max(0, sign * bound)) for sign in target]
    found = minimize(
        dual,
        np.zeros(len(target)),
        args=(target, kernel),
        jac=lambda beta, target, kernel: kernel @ beta - target,
        bounds=ends,
        constraints={"type": "eq", "fun": np.sum, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    return float(found.fun)


class TestSolution:
    @given(
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(2, 12),
        bound=st.sampled_from([1e-3, 0.1, 1.0, 10.0]),
        gamma=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
    )
    def test_is_the_literal_minimum_of_the_dual(
        self, seed: int, count: int, bound: float, gamma: float
    ) -> None:
        rng = np.random.default_rng(seed)
        # a coarse grid, so that samples coincide, with different labels too
        features, target = overlapping(rng, count, 2)
        features = np.round(features)
        beta, _, gap, _ = trained(features, target, bound=bound, gamma=gamma)
        kernel = kernel_of(features, gamma)
        assert gap <= 1e-6
        assert abs(beta.sum()) <= 1e-9 * bound
        assert (target * beta >= 0).all()
        assert (target * beta <= bound).all()
        # from above: the general method need not reach the minimum, only no lower
        least = least_dual(target, kernel, bound)
        assert dual(beta, target, kernel) == pytest.approx(least, abs=2e-5 * max(1, bound), rel=1e-5)

    @pytest.mark.parametrize("bound", [1e-3, 1.0, 1e2, 1e4])
    @pytest.mark.parametrize("gamma", [1e-5, 1e-2, 0.1, 1.0, 50.0])
    def test_is_scikit_learn_s(self, bound: float, gamma: float, rng: np.random.Generator) -> None:
        features, target = overlapping(rng)
        beta, intercept, gap, decisions = trained(features, target, bound=bound, gamma=gamma)
        machine = SVC(C=bound, gamma=gamma, tol=1e-6).fit(features, target)
        assert gap <= 1e-6
        expected = machine.decision_function(features)
        np.testing.assert_allclose(decisions, expected, atol=1e-3)
        assert intercept == pytest.approx(machine.intercept_[0], abs=1e-3)
        far = np.abs(expected) > 1e-3
        np.testing.assert_array_equal(np.sign(decisions[far]), machine.predict(features[far]))
        theirs = np.zeros(len(target))
        theirs[machine.support_] = machine.dual_coef_[0]
        kernel = kernel_of(features, gamma)
        assert dual(beta, target, kernel) == pytest.approx(dual(theirs, target, kernel), rel=1e-6)

    def test_of_unequal_classes_is_scikit_learn_s(self, rng: np.random.Generator) -> None:
        features, _ = overlapping(rng)
        target = np.where(np.arange(len(features)) < 5, 1, -1)
        decisions = trained(features, target, bound=10.0, gamma=0.1)[3]
        expected = SVC(C=10.0, gamma=0.1, tol=1e-6).fit(features, target).decision_function(features)
        np.testing.assert_allclose(decisions, expected, atol=1e-5)

    def test_of_samples_that_all_coincide_is_the_majority(self) -> None:
        target = np.array([1, 1, 1, -1, -1])
        decisions = trained(np.ones((5, 3)), target, bound=1.0, gamma=1.0)[3]
        expected = SVC(C=1.0, gamma=1.0, tol=1e-6).fit(np.ones((5, 3)), target)
        np.testing.assert_allclose(decisions, expected.decision_function(np.ones((5, 3))), atol=1e-6)

    def test_of_two_samples_is_exact(self) -> None:
        features, target = np.array([[0.0], [1.0]]), np.array([1, -1])
        beta, intercept, _, _ = trained(features, target, bound=100.0, gamma=1.0)
        expected = 1 / (1 - np.exp(-1.0))
        np.testing.assert_allclose(beta, [expected, -expected], rtol=1e-6)
        assert intercept == pytest.approx(0, abs=1e-9)


class TestWork:
    def test_gives_the_same_with_room_for_two_rows(self, rng: np.random.Generator) -> None:
        features, target = overlapping(rng)
        wide = trained(features, target, bound=10.0, gamma=0.3)
        narrow = trained(features, target, bound=10.0, gamma=0.3, slots=2)
        np.testing.assert_array_equal(wide[0], narrow[0])
        np.testing.assert_array_equal(wide[3], narrow[3])

    def test_gives_the_same_from_another_feasible_start(self, rng: np.random.Generator) -> None:
        features, target = overlapping(rng)
        cold = trained(features, target, bound=1.0, gamma=0.3)
        other = trained(features, target, bound=30.0, gamma=0.1)[0] / 30
        warm = trained(features, target, bound=1.0, gamma=0.3, start=other)
        np.testing.assert_allclose(warm[3], cold[3], atol=1e-5)

    @pytest.mark.parametrize("seed", range(8))
    def test_takes_no_rest_of_rounding_for_a_free_coefficient(self, seed: int) -> None:
        # with one sample too many the larger class has a coefficient at zero, and all others are at C
        features, _ = overlapping(np.random.default_rng(seed), 61, 2)
        target = np.where(np.arange(61) % 2 == 0, 1, -1)
        before, bound = 0.05543959655433523, 0.010765753044607616
        cold = trained(features, target, bound=bound, gamma=0.1)
        start = trained(features, target, bound=before, gamma=3.0)[0] * (bound / before)
        warm = trained(features, target, bound=bound, gamma=0.1, start=start)
        size = np.abs(warm[0])
        near = (size < 1e-9 * bound) | (size > bound * (1 - 1e-9))
        assert set(size[near]) <= {0.0, bound}
        np.testing.assert_allclose(warm[3], cold[3], atol=1e-5)

    def test_stops_at_its_limit_and_says_how_far_it_is(self, rng: np.random.Generator) -> None:
        features, target = overlapping(rng)
        gap = trained(features, target, bound=100.0, gamma=0.3, limit=10)[2]
        assert gap > 1e-3
