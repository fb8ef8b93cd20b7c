"""ZCA whitening (Bell and Sejnowski, Vision Research 1997) as a scikit-learn transformer."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data


class ZCA(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Decorrelates the features with the least rotation.

    `W = V diag(1 / sqrt(l_i + rho m)) V^T`, applied as `(x - mean) W`

    V, l_i  eigenvectors and eigenvalues of the training features' covariance (divided by n - 1), falling
    m       the mean eigenvalue: the trace of the covariance over the number of features d
    rho     `regularisation`, at least 0; relative, so that it means the same for every backbone

    `rank` is the number of eigenvectors that are kept (at least 1; None: all). A direction in which the
    training samples do not vary is never kept: it holds no variance to bring to one, and dividing by its
    rounding error, or by the root of `rho m` alone, would make it dominate new samples. So at most n - 1 are
    kept, and a feature that is constant in training has no effect. Fewer samples than features are decomposed
    through their n x n Gram matrix.

    After `fit`: `mean_` [d]; `components_` [r, d], whose coordinates `(x - mean) components^T` have the same
    distances between samples as the whitened features; `gains_` [r], the length of each of its rows. float32
    input gives float32 output; the decomposition is done in float64.
    """

    mean_: Float[np.ndarray, " d"]
    components_: Float[np.ndarray, "r d"]
    gains_: Float[np.ndarray, " r"]

    def __init__(self, regularisation: float = 1e-2, rank: int | None = None) -> None:
        self.regularisation = regularisation
        self.rank = rank

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: N803
        """Learns mean and directions from `X` [n, d], n at least 2; `y` is ignored.

        Raises:
            ValueError: fewer than two samples, values that are not finite, no feature that varies, or a
                setting out of its range.
        """
        if not self.regularisation >= 0:
            raise ValueError(f"regularisation: at least 0, is {self.regularisation}; 0.01 is a usual value")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank: at least 1, is {self.rank}; give None for all directions")
        features = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features.astype(np.float64) - mean
        # centring leaves rounding errors in constant features
        centred[:, np.ptp(features, axis=0) == 0] = 0
        eigenvalues, directions = _principal(centred)
        if not len(eigenvalues):
            raise ValueError(
                f"features: at least one must vary, and all {features.shape[1]} are constant over the "
                f"{len(features)} samples; whitening has nothing to work on, so look at the images"
            )
        mean_eigenvalue = float(np.square(centred).sum()) / (len(features) - 1) / features.shape[1]
        gains = 1 / np.sqrt(eigenvalues + self.regularisation * mean_eigenvalue)
        kept = slice(self.rank)
        self.mean_ = mean.astype(features.dtype)
        self.gains_ = gains[kept].astype(features.dtype)
        self.components_ = (gains[kept, None] * directions[kept]).astype(features.dtype)
        return self

    def transform(self, X: ArrayLike) -> Float[np.ndarray, "n d"]:  # noqa: N803
        """The whitened features of `X` [n, d]."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        mean, components, gains = (
            array.astype(features.dtype, copy=False) for array in (self.mean_, self.components_, self.gains_)
        )
        whitened: Float[np.ndarray, "n d"] = ((features - mean) @ components.T) @ (
            components / gains[:, None]
        )
        return whitened

    def __sklearn_tags__(self) -> Tags:
        tags: Any = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _principal(
    centred: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r d"]]:
    """The eigenvalues above rounding error, largest first, and their unit eigenvectors as rows."""
    samples, width = centred.shape
    small = samples < width
    values, vectors = np.linalg.eigh(centred @ centred.T if small else centred.T @ centred)
    values, vectors = values[::-1], vectors[:, ::-1].T
    # centring removes one direction, of which rounding may leave a trace
    values, vectors = values[: samples - 1], vectors[: samples - 1]
    real = values > max(samples, width) * np.finfo(np.float64).eps * max(values[0], 0.0)
    values, vectors = values[real], vectors[real]
    if small:
        vectors = vectors @ centred
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # an eigenvector's sign is arbitrary: make its largest entry positive on every machine
    largest = np.argmax(np.abs(vectors), axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return values / (samples - 1), vectors * signs[:, None]
