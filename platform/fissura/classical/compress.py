"""Compresses a fitted pipeline to a classifier of a few kilobytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Integer

from fissura.classical.compression import Compression, check_method
from fissura.core.errors import DataError, SpecError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from fissura.classical.compact import Compact


def compact(
    pipeline: "Pipeline",
    *,
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, " n"],
    compression: Compression,
    seed: int,
    classes: Sequence[str] | None = None,
) -> "Compact":
    """A small classifier that decides like `pipeline`, which must be a fitted `estimators.pipeline`.

    `features` and `labels` are those it was fitted on, in the same order. `classes` are the names of the
    labels 0, 1, ...; None: the numbers themselves.

    Raises:
        SpecError: the pipeline has other steps, or the method does not fit its classifier.
        NotFittedError: the pipeline is not fitted (scikit-learn's, a ValueError).
        DataError: the features or labels are not those of the fit, or are of one class only.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC
    from sklearn.utils.validation import check_is_fitted

    from fissura.classical.compact import Compact
    from fissura.classical.forest_compression import compress_forest
    from fissura.classical.scaling import UnitDistance
    from fissura.classical.svm_compression import compress_svm
    from fissura.classical.zca import ZCA

    steps: dict[str, Any] = dict(pipeline.named_steps)
    classifier: Any = steps.get("classifier")
    whitening = steps.get("whitening", ZCA())
    machine = isinstance(classifier, SVC) and classifier.kernel == "rbf" and not callable(classifier.gamma)
    known = machine or isinstance(classifier, RandomForestClassifier)
    if not known or not isinstance(steps.get("scaling"), UnitDistance) or not isinstance(whitening, ZCA):
        raise SpecError(
            f"pipeline: [whitening (ZCA)], scaling (UnitDistance), classifier (RBF SVC or forest), is "
            f"{[f'{name} ({type(step).__name__})' for name, step in steps.items()]}; build it with `pipeline`"
        )
    check_method(compression, classifier="svm" if machine else "forest")
    check_is_fitted(classifier)
    _check_data(pipeline, features=features, labels=labels)
    values = [int(label) for label in classifier.classes_]
    if classes is not None and not 0 <= values[0] <= values[-1] < len(classes):
        raise DataError(
            f"classes: a name for each of the labels {values}, are {list(classes)}; name them all"
        )
    kind, arrays = (compress_svm if machine else compress_forest)(
        pipeline, features=features, labels=labels, compression=compression, seed=seed
    )
    return Compact(
        kind,
        classes=[str(value) if classes is None else classes[value] for value in values],
        labels=values,
        width=features.shape[1],
        arrays=arrays,
    )


def _check_data(
    pipeline: "Pipeline", *, features: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, " n"]
) -> None:
    """Checks that the pipeline can have been fitted on these."""
    width = pipeline.n_features_in_
    if features.ndim != 2 or features.shape[1] != width or len(features) != len(labels):
        raise DataError(
            f"features, labels: [n, {width}] and [n], are {list(features.shape)} and {list(labels.shape)}; "
            "give those that the pipeline was fitted on"
        )
    if not np.isfinite(features).all():
        raise DataError("features: must be finite, and some are not; leave out the images they are of")
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(f"labels: at least two classes, are all {classes}; add images of another class")
    if not np.array_equal(classes, pipeline.classes_):
        raise DataError(
            f"labels: the pipeline was fitted on the classes {pipeline.classes_.tolist()}, these are "
            f"{classes.tolist()}; give the labels of the fit"
        )
