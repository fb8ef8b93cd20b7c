"""Features whose mean squared distance is one, so that gamma means the same for every backbone."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data


class UnitDistance(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Divides all features by one number, `s = sqrt(2 v)`, with v the sum of the features' variances.

    With variances divided by n, `2 v` is exactly the mean of `|x_i - x_j|^2` over all n x n ordered pairs of
    training samples (i = j included). An RBF kernel on the result is `exp(-gamma |x - y|^2 / s^2)`: a gamma
    of 1 is one over the typical squared distance, whatever the width and the scale of the features.

    After `fit`: `scale_`, which is s. float32 input gives float32 output.
    """

    scale_: float

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: N803
        """Learns the scale from `X` [n, d], n at least 2; `y` is ignored.

        Raises:
            ValueError: fewer than two samples, values that are not finite, or no feature that varies.
        """
        features = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        scale = float(np.sqrt(2 * features.var(axis=0, dtype=np.float64).sum()))
        if scale == 0 or not np.ptp(features, axis=0).any():
            raise ValueError(
                f"features: at least one must vary, and all {features.shape[1]} are constant over the "
                f"{len(features)} samples; no two can be told apart, so look at the images"
            )
        self.scale_ = scale
        return self

    def transform(self, X: ArrayLike) -> Float[np.ndarray, "n d"]:  # noqa: N803
        """`X` [n, d] over the scale."""
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        scaled: Float[np.ndarray, "n d"] = features / features.dtype.type(self.scale_)
        return scaled

    def __sklearn_tags__(self) -> Tags:
        tags: Any = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
