"""Ridge regression that chooses its strength."""

import numpy as np
from jaxtyping import Float

STRENGTHS = 10.0 ** np.arange(-14, 0)  # relative to the largest squared singular value


def ridge(
    columns: Float[np.ndarray, "n m"], target: Float[np.ndarray, "n p"]
) -> tuple[Float[np.ndarray, "m p"], Float[np.ndarray, " p"]]:
    """Weights and intercepts w, b that minimise `|columns w + b - target|^2 + strength |w|^2`.

    Chooses the strength with the least exact leave-one-out error (Allen's PRESS), which one decomposition
    gives for all strengths.
    """
    mean, target_mean = columns.mean(axis=0), target.mean(axis=0)
    left, values, right = np.linalg.svd(columns - mean, full_matrices=False)
    centred = target - target_mean
    along = left.T @ centred
    errors = []
    for strength in (strengths := STRENGTHS * values[0] ** 2 + np.finfo(np.float64).tiny):
        kept = values**2 / (values**2 + strength)
        leverage = np.square(left) @ kept + 1 / len(columns)
        residual = centred - left @ (kept[:, None] * along)
        # a sample that determines its own value does not show the error elsewhere
        errors.append(float(np.square(residual / np.maximum(1 - leverage, 1e-6)[:, None]).sum()))
    strength = strengths[int(np.argmin(errors))]
    weights = right.T @ ((values / (values**2 + strength))[:, None] * along)
    return weights, target_mean - mean @ weights
