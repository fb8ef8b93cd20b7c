"""Squared distances between all samples, from which every RBF kernel of a backbone's features is computed."""

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy.typing import DTypeLike

from fissura.core.errors import DataError, ResourceError
from fissura.core.text import size

# below this share of the squared norms a squared distance is a rounding error of float64
_ROUNDING = 1e-12


def squared_distances(
    features: Float[np.ndarray, "n d"],
    *,
    dtype: DTypeLike = np.float32,
    block: int = 1024,
    memory: int = 8 * 2**30,
) -> Float[np.ndarray, "n n"]:
    """`|x_i - x_j|^2` for all pairs, symmetric, zero on the diagonal and between equal samples.

    Matrix products of float64 blocks (`block` samples a side, upper triangle only) of features shifted by the
    first sample, so that constant columns vanish exactly; rounded once, to `dtype`. The matrix takes
    `n * n` values, `memory` bytes at most.

    Raises:
        DataError: a value is not a finite number, or there is no sample.
        ResourceError: the matrix is larger than `memory`.
    """
    check_finite(features)
    count, kind = len(features), np.dtype(dtype)
    needed = count * count * kind.itemsize
    if needed > memory:
        raise ResourceError(
            f"distances: {count} samples need {size(needed)}, and {size(memory)} are allowed in memory; take"
            " fewer images"
        )
    values: Float[np.ndarray, "n n"] = np.empty((count, count), dtype=kind)
    _fill(values, features=features, block=block)
    return values


def mean_squared_distances(
    distances: Float[np.ndarray, "n n"], *, fold_of: Int[np.ndarray, " n"], block: int = 1024
) -> Float64[np.ndarray, " k"]:
    """For each fold the mean of `distances` over the ordered pairs of its training samples, i = j included.

    `UnitDistance`, fitted on those samples, divides squared distances by it.
    """
    member = np.eye(int(fold_of.max()) + 1)[fold_of]
    between = np.zeros((member.shape[1], member.shape[1]))
    for start in range(0, len(distances), block):
        rows = slice(start, start + block)
        between += member[rows].T @ (np.asarray(distances[rows], dtype=np.float64) @ member)
    within_training = between.sum() - between.sum(axis=0) - between.sum(axis=1) + np.diag(between)
    training = len(member) - member.sum(axis=0)
    means: Float64[np.ndarray, " k"] = within_training / training**2
    return means


def check_finite(features: Float[np.ndarray, "n d"]) -> None:
    """Checks that all features are finite.

    Raises:
        DataError: they are not; names how many and the samples.
    """
    if features.ndim != 2 or len(features) == 0:
        raise DataError(
            f"features: a matrix of samples x features is needed, not one of shape {features.shape}"
        )
    bad = ~np.isfinite(features)
    if bad.any():
        samples = np.flatnonzero(bad.any(axis=1))
        shown = [f"sample {sample}" for sample in samples[:5]]
        more = f" and {len(samples) - 5} more" if len(samples) > 5 else ""
        raise DataError(
            f"features: all must be finite, and {bad.sum()} of {features.size} values are not, in "
            f"{', '.join(shown)}{more} (first in column {bad[samples[0]].argmax()}); extract them again or "
            "leave these samples out"
        )


def _fill(values: Float[np.ndarray, "n n"], *, features: Float[np.ndarray, "n d"], block: int) -> None:
    origin = features[0].astype(np.float64)
    for top in range(0, len(features), block):
        left = features[top : top + block].astype(np.float64) - origin
        left_norms = np.einsum("ij,ij->i", left, left)
        for start in range(top, len(features), block):
            right = features[start : start + block].astype(np.float64) - origin
            norms = left_norms[:, None] + np.einsum("ij,ij->i", right, right)
            squared = left @ right.T
            squared *= -2
            squared += norms
            norms *= _ROUNDING
            squared[squared < norms] = 0
            if start == top:
                np.fill_diagonal(squared, 0)
                squared = (squared + squared.T) / 2
            values[top : top + block, start : start + block] = squared
            if start != top:
                values[start : start + block, top : top + block] = squared.T
