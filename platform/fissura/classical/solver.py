"""A C-SVM's dual problem on one RBF kernel, by sequential minimal optimisation compiled with numba.

With targets y_i in {-1, 1} and coefficients beta_i = y_i alpha_i it is

    min 1/2 beta' K beta - y' beta,  sum beta = 0,  0 <= y_i beta_i <= C,  K_ij = exp(-gamma |x_i - x_j|^2)

and F = y - K beta is its negative gradient. beta_i may rise while below its upper bound, and fall while above
its lower one. It is optimal where max F over those that may rise <= min F over those that may fall; the
intercept lies between. Each step moves the second-order pair of Fan, Chen and Lin (JMLR 6, 2005).

Rows of the kernel are float32, as in libsvm; coefficients and gradient are float64. F is kept twice: `rising`
is F where i may rise, else -inf; `falling` is F where i may fall, else inf. So the pair is chosen by plain
maxima, which compilers vectorise. A problem's samples are given as ranges of positions, `segments`, [start,
stop) each, so that leaving out a fold or a class copies no part of the kernel. All functions here release the
GIL.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numba import njit, types
from numba.extending import intrinsic

from fissura.classical.kernel_rows import KernelRows, add_exact, row_slot

# the denominator for samples that the kernel cannot distinguish, as in libsvm
_LEAST_CURVATURE = 1e-12
# the share of C that is a rounding error
_ROUNDING = 1e-12
_exact = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
# for vector reductions: sums may be reordered, no value is NaN; infinities are kept
_vector = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "nnan"})


def _greater(operator: str) -> Any:
    """The greater (or less) of two numbers, in a form that LLVM recognises as a reduction, unlike `max`."""

    @intrinsic
    def choose(_context: Any, left: Any, right: Any) -> Any:
        def generate(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
            flags = ("nnan", "nsz")
            return builder.select(builder.fcmp_ordered(operator, *values, flags=flags), *values, flags=flags)

        return (left(left, right), generate) if left == right and isinstance(left, types.Float) else None

    return choose


_larger, _smaller = _greater(">"), _greater("<")


@_vector
def _add(sums: Float64[np.ndarray, " s"], weight: float, row: Float32[np.ndarray, " s"]) -> None:
    for t in range(len(sums)):
        sums[t] += weight * row[t]


@_vector
def _move(
    rising: Float64[np.ndarray, " s"],
    falling: Float64[np.ndarray, " s"],
    row_i: Float32[np.ndarray, " s"],
    row_j: Float32[np.ndarray, " s"],
    step: float,
) -> tuple[float, float]:
    """Updates F for beta_i risen and beta_j fallen by `step`; its greatest `rising` and least `falling`."""
    greatest, least = -np.inf, np.inf
    for t in range(len(rising)):
        change = step * np.float64(row_i[t] - row_j[t])
        up, down = rising[t] - change, falling[t] - change
        rising[t], falling[t] = up, down
        greatest, least = _larger(greatest, up), _smaller(least, down)
    return greatest, least


@_vector
def _gains(
    falling: Float64[np.ndarray, " s"],
    greatest: float,
    row_i: Float32[np.ndarray, " s"],
    gains: Float32[np.ndarray, " s"],
) -> np.float32:
    """Writes for each j twice the decrease of the objective if i and j move, 0 where they cannot; the
    largest."""
    best = np.float32(0)
    for t in range(len(falling)):
        violation = _larger(np.float32(greatest - falling[t]), np.float32(0))
        curvature = _larger(np.float32(2) - np.float32(2) * row_i[t], np.float32(_LEAST_CURVATURE))
        gains[t] = violation * violation / curvature
        best = _larger(best, gains[t])
    return best


@_vector
def _place(values: Float[np.ndarray, " s"], value: float) -> np.int32:
    """The first index of `value`."""
    first = np.int32(len(values))
    for t in range(len(values)):
        first = min(first, np.int32(t) if values[t] == value else np.int32(len(values)))
    return first


@_exact
def _snapped(beta: float, lower: float, upper: float) -> float:
    """`beta`, set to a bound that it differs from only by rounding. Else it would pass for a free coefficient
    and fix the intercept, which with all at their bounds is the middle of an interval."""
    close = _ROUNDING * (upper - lower)
    if beta >= upper - close:
        return upper
    return lower if beta <= lower + close else beta


@_exact
def _place_bounds(
    t: int,
    gradient: float,
    beta: Float64[np.ndarray, " n"],
    lower: float,
    upper: float,
    rising: Float64[np.ndarray, " n"],
    falling: Float64[np.ndarray, " n"],
) -> None:
    rising[t] = gradient if beta[t] < upper else -np.inf
    falling[t] = gradient if beta[t] > lower else np.inf


@_exact
def solve(
    kernel: KernelRows,
    factor: float,
    segments: Int64[np.ndarray, "s 2"],
    target: Float64[np.ndarray, " n"],
    bound: float,
    beta: Float64[np.ndarray, " n"],
    tolerance: float,
    limit: int,
) -> tuple[float, float, int]:
    """Optimises `beta` in place from the feasible point that it holds; zero is one.

    Args:
        kernel: keeps the rows that it exponentiates, for calls with the same distances and factor.
        factor: the kernel is `2^(factor * distances)`, so this is `-gamma / ln 2`.
        segments: the problem's samples, as ranges of positions in the solver's order.
        target: -1 or 1 at those.
        bound: C.
        beta: coefficients; 0 outside the segments.
        tolerance: the gap, `max rising F - min falling F`, at which it stops.
        limit: the most iterations.

    Returns:
        The intercept, the final gap and the number of iterations. A gap above `tolerance`: `limit` was
        reached.
    """
    count = len(target)
    gradient, rising, falling = np.empty(count), np.empty(count), np.empty(count)
    gains = np.empty(count, np.float32)
    lower, upper = np.where(target > 0, 0.0, -bound), np.where(target > 0, bound, 0.0)
    for s in range(len(segments)):
        start, stop = segments[s, 0], segments[s, 1]
        gradient[start:stop] = target[start:stop]
    for s in range(len(segments)):
        start, stop = segments[s, 0], segments[s, 1]
        for i in range(start, stop):
            beta[i] = _snapped(beta[i], lower[i], upper[i])
            if beta[i] != 0:
                row = kernel.kept[row_slot(kernel, factor, i, -1)]
                for r in range(len(segments)):
                    first, last = segments[r, 0], segments[r, 1]
                    _add(gradient[first:last], -beta[i], row[first:last])
    greatest, least, i = -np.inf, np.inf, -1
    for s in range(len(segments)):
        start, stop = segments[s, 0], segments[s, 1]
        for t in range(start, stop):
            _place_bounds(t, gradient[t], beta, lower[t], upper[t], rising, falling)
            if rising[t] > greatest:
                greatest, i = rising[t], t
            least = min(least, falling[t])
    iterations = 0
    while iterations < limit and greatest - least > tolerance:
        row_i = kernel.kept[row_slot(kernel, factor, i, -1)]
        best, start, stop = np.float32(0), 0, 0
        for s in range(len(segments)):
            first, last = segments[s, 0], segments[s, 1]
            gain = _gains(falling[first:last], greatest, row_i[first:last], gains[first:last])
            if gain > best:
                best, start, stop = gain, first, last
        j = start + _place(gains[start:stop], best)
        if j == stop:
            break
        row_j = kernel.kept[row_slot(kernel, factor, j, i)]
        gradient_i, gradient_j = rising[i], falling[j]
        room_i, room_j = upper[i] - beta[i], beta[j] - lower[j]
        step = (gradient_i - gradient_j) / max(2 - 2 * np.float64(row_i[j]), _LEAST_CURVATURE)
        step = min(step, room_i, room_j)
        beta[i] = _snapped(beta[i] + step, lower[i], upper[i])
        beta[j] = _snapped(beta[j] - step, lower[j], upper[j])
        _place_bounds(i, gradient_i, beta, lower[i], upper[i], rising, falling)
        _place_bounds(j, gradient_j, beta, lower[j], upper[j], rising, falling)
        greatest, least, start, stop = -np.inf, np.inf, 0, 0
        for s in range(len(segments)):
            first, last = segments[s, 0], segments[s, 1]
            up, down = _move(
                rising[first:last], falling[first:last], row_i[first:last], row_j[first:last], step
            )
            if up > greatest:
                greatest, start, stop = up, first, last
            least = min(least, down)
        i = start + _place(rising[start:stop], greatest)
        iterations += 1
    total, free = 0.0, 0
    for s in range(len(segments)):
        start, stop = segments[s, 0], segments[s, 1]
        for t in range(start, stop):
            if lower[t] < beta[t] < upper[t]:
                total += rising[t]
                free += 1
    return (total / free if free else (greatest + least) / 2), greatest - least, iterations


@_exact
def decide(
    kernel: KernelRows,
    factor: float,
    segments: Int64[np.ndarray, "s 2"],
    beta: Float64[np.ndarray, " n"],
    intercept: float,
    start: int,
    decisions: Float64[np.ndarray, " t"],
) -> None:
    """Writes the decisions, sum of beta_i K_it + intercept, of `len(decisions)` samples from `start` on.

    Exponentiates the kernel again, in float64: with a large C the rows' rounding to float32 would show.
    """
    decisions[:] = intercept
    for s in range(len(segments)):
        for i in range(segments[s, 0], segments[s, 1]):
            if beta[i] != 0:
                add_exact(kernel, factor, i, start, beta[i], decisions)
