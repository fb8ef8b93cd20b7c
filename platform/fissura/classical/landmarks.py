"""Chooses the few vectors of a smaller kernel machine."""

import numpy as np
from jaxtyping import Float

STEPS = 100  # of L-BFGS


def kernel(first: Float[np.ndarray, "n r"], second: Float[np.ndarray, "m r"]) -> Float[np.ndarray, "n m"]:
    """`exp(-|z - v|^2 / 2)` of all pairs of rows."""
    squares = (first**2).sum(axis=1)[:, None] / 2 + (second**2).sum(axis=1) / 2
    values: Float[np.ndarray, "n m"] = np.exp(-np.maximum(squares - first @ second.T, 0))
    return values


def centres(z: Float[np.ndarray, "n r"], *, count: int, rng: np.random.Generator) -> Float[np.ndarray, "m r"]:
    """The centres of `count` clusters of `z` (k-means), or its distinct rows if they are no more."""
    from sklearn.cluster import KMeans

    distinct = np.unique(z, axis=0)
    if len(distinct) <= count:
        return distinct
    means = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit(z)
    result: Float[np.ndarray, "m r"] = means.cluster_centers_
    return result


def optimised(
    landmarks: Float[np.ndarray, "m r"],
    *,
    points: Float[np.ndarray, "n r"],
    target: Float[np.ndarray, "n p"],
    weights: Float[np.ndarray, "m p"],
    intercept: Float[np.ndarray, " p"],
) -> Float[np.ndarray, "m r"]:
    """`landmarks`, optimised by L-BFGS together with `weights` and `intercept`.

    Minimises the squared error of `kernel(points, landmarks) @ weights + intercept` to `target`.
    """
    from scipy.optimize import minimize

    decay = 1e-6 / max(1.0, float(np.square(weights).sum()))
    start = np.concatenate([landmarks.ravel(), weights.ravel(), intercept])
    arguments = (points, target, len(landmarks), decay)
    result = minimize(
        fit_error, start, args=arguments, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
    )
    end: Float[np.ndarray, "m r"] = result.x[: landmarks.size].reshape(landmarks.shape)
    return end


def fit_error(
    flat: Float[np.ndarray, " k"],
    points: Float[np.ndarray, "n r"],
    target: Float[np.ndarray, "n p"],
    count: int,
    decay: float,
) -> tuple[float, Float[np.ndarray, " k"]]:
    """The squared error over the targets' squared deviations, plus `decay` times the squared weights, and its
    gradient.

    `flat` holds `count` landmarks, their weights and the intercepts, one after the other.
    """
    size, outputs = count * points.shape[1], target.shape[1]
    vectors = flat[:size].reshape(count, -1)
    weights = flat[size:-outputs].reshape(count, outputs)
    scale = max(float(np.square(target - target.mean(axis=0)).sum()), np.finfo(np.float64).tiny)
    values = kernel(points, vectors)
    residual = values @ weights + flat[-outputs:] - target
    slope = 2 * residual / scale
    pull = slope @ weights.T * values
    gradient = [
        (pull.T @ points - pull.sum(axis=0)[:, None] * vectors).ravel(),
        (values.T @ slope + 2 * decay * weights).ravel(),
        slope.sum(axis=0),
    ]
    value = float(np.square(residual).sum()) / scale + decay * float(np.square(weights).sum())
    return value, np.concatenate(gradient)


def frequencies(count: int, *, rank: int, rng: np.random.Generator) -> Float[np.ndarray, "m r"]:
    """Orthogonal random frequencies (Yu et al., NeurIPS 2016) of the kernel `exp(-|z - v|^2 / 2)`.

    Each is Gaussian by itself; those of a block of `rank` are orthogonal, which lowers the error.
    """
    blocks = []
    for _ in range(-(-count // rank)):
        rotation, _ = np.linalg.qr(rng.normal(size=(rank, rank)))
        lengths = np.linalg.norm(rng.normal(size=(rank, rank)), axis=1)
        blocks.append(lengths[:, None] * rotation)
    return np.concatenate(blocks)[:count]
