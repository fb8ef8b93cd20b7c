"""Scores a classifier's configuration on the images that its folds left out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from fissura.classical.compact import Compact
from fissura.classical.compress import compact
from fissura.classical.estimators import SVM, AnyWhitening, BackboneHead, pipeline
from fissura.classification.recipe import ClassifierRecipe
from fissura.classification.trained_head import TrainedHead
from fissura.core.errors import DataError, SpecError
from fissura.metrics.classification import class_scores

TOLERANCE = 1e-3  # of the SVM's dual problem, as scikit-learn's default


@dataclass(frozen=True)
class FoldDistances:
    """Squared distances of all images: one matrix for all folds, or one a fold where whitening was fitted to
    each fold's training images. `scales` are the mean squared distances of each fold's training images."""

    matrices: Float32[np.ndarray, "m n n"]
    scales: Float64[np.ndarray, " k"]


def fold_distances(
    features: Float32[np.ndarray, "n d"], *, fold_of: Int64[np.ndarray, " n"], whitening: AnyWhitening
) -> FoldDistances:
    """The distances that all SVMs of a backbone and a whitening share."""
    from fissura.classical.distances import squared_distances

    folds = range(int(fold_of.max()) + 1)
    views = [whitened(features, whitening=whitening, training=fold_of != fold) for fold in folds]
    distinct = views if whitening.kind != "none" else views[:1]
    return FoldDistances(
        np.stack([squared_distances(view) for view in distinct]),
        np.array(
            [_mean_squared_distance(view[fold_of != fold]) for fold, view in zip(folds, views, strict=True)]
        ),
    )


def whitened(
    features: Float32[np.ndarray, "n d"], *, whitening: AnyWhitening, training: Bool[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d"]:
    """All features, whitened by a transformer fitted to the `training` ones; unchanged without whitening."""
    transformer = whitening.build()
    if transformer is None:
        return features
    return np.asarray(transformer.fit(features[training]).transform(features), dtype=np.float32)


def _mean_squared_distance(features: Float32[np.ndarray, "n d"]) -> float:
    return 2 * float(features.var(axis=0, dtype=np.float64).sum())


def shares_distances(recipe: ClassifierRecipe, metrics: Sequence[str]) -> bool:
    """Whether a trial needs only the shared distances: an uncompressed RBF SVM without metrics of size or
    time."""
    exact = recipe.compression.method == "none" and recipe.compression.bits == 32
    measured = {"bytes", "microseconds"} & set(metrics)
    return isinstance(recipe.classifier, SVM) and exact and not measured


def judge_svms(
    recipes: Sequence[ClassifierRecipe],
    distances: FoldDistances,
    *,
    labels: Int64[np.ndarray, " n"],
    fold_of: Int64[np.ndarray, " n"],
) -> list[dict[str, float | None]]:
    """The scores of SVMs that share their distances; `converged` is 0 where one ran out of iterations."""
    # numba takes a second to import, and only a search needs it
    from fissura.classical.cross_validation import cross_validate

    settings = [
        (recipe.classifier.C, recipe.classifier.gamma)
        for recipe in recipes
        if isinstance(recipe.classifier, SVM)
    ]
    result = cross_validate(
        distances.matrices[0] if len(distances.matrices) == 1 else list(distances.matrices),
        labels=labels,
        fold_of=fold_of,
        configurations=settings,
        scales=distances.scales,
        tolerance=TOLERANCE,
    )
    return [
        _scores(labels, predictions, int(labels.max()) + 1) | {"converged": float(converged)}
        for predictions, converged in zip(result.predictions, result.converged, strict=True)
    ]


def judge(
    recipe: ClassifierRecipe,
    features: Float32[np.ndarray, "n d"],
    *,
    labels: Int64[np.ndarray, " n"],
    fold_of: Int64[np.ndarray, " n"],
    classes: Sequence[str],
    threads: int = 1,
    head: TrainedHead | None = None,
) -> dict[str, float | None]:
    """The scores of any classifier, compressed as it will be used, with `bytes` and `microseconds` an image
    as means over the folds. See `fit`.

    A head is the same in every fold, and still scored on unseen images: features and labels are those of the
    images that its backbone never saw.
    """
    predictions = np.empty_like(labels)
    sizes, times = [], []
    for fold in range(recipe.folds):
        training = fold_of != fold
        classifier = fit(
            recipe, features[training], labels=labels[training], classes=classes, threads=threads, head=head
        )
        predictions[~training] = classifier.predict(features[~training])
        sizes.append(classifier.nbytes)
        times.append(microseconds(classifier, features[~training]))
    return _scores(labels, predictions, len(classes)) | {
        "bytes": float(np.mean(sizes)),
        "microseconds": float(np.mean(times)),
    }


def fit(
    recipe: ClassifierRecipe,
    features: Float32[np.ndarray, "n d"],
    *,
    labels: Int64[np.ndarray, " n"],
    classes: Sequence[str],
    threads: int = 1,
    head: TrainedHead | None = None,
) -> Compact:
    """The recipe's classifier, fitted to all features, in its compact form. A forest grows the same trees
    with any number of `threads`. A recipe of classifier `head` takes `head`, the one trained with the
    backbone.

    Raises:
        SpecError: a recipe of classifier `head` without one.
    """
    if isinstance(recipe.classifier, BackboneHead):
        if head is None:
            raise SpecError(
                "`classifier.kind: head` is the head that the backbone learnt with, and none was given; read"
                " it with `TrainedHead.read`"
            )
        return head.compact(classes=classes, compression=recipe.compression)
    estimator = pipeline(recipe.whitening, classifier=recipe.classifier, seed=recipe.seed)
    if "classifier__n_jobs" in estimator.get_params():
        estimator.set_params(classifier__n_jobs=threads)
    return compact(
        estimator.fit(features, labels),
        features=features,
        labels=labels,
        classes=classes,
        compression=recipe.compression,
        seed=recipe.seed,
    )


def microseconds(classifier: Compact, features: Float32[np.ndarray, "n d"]) -> float:
    """The median time of one image's classification from its features, in microseconds."""
    times = []
    for index in range(min(len(features), 32)):
        begin = time.perf_counter()
        classifier.predict(features[index : index + 1])
        times.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(times))


def check_features(features: Float32[np.ndarray, "n d"]) -> None:
    """Checks that a classifier can be fitted.

    Raises:
        DataError: a feature is not finite, or all images have the same features.
    """
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        raise DataError(
            f"features are finite numbers; those of {bad} images are not: train the backbone again"
        )
    if not (features != features[:1]).any():
        raise DataError(
            f"the features of all {len(features)} images are the same, so nothing tells the classes apart;"
            " train the backbone, or choose another"
        )


def _scores(
    labels: Int64[np.ndarray, " n"], predictions: Int64[np.ndarray, " n"], classes: int
) -> dict[str, float | None]:
    scores = class_scores(labels, predictions, classes=classes)
    return {
        "cv/f1": scores.f1,
        "cv/accuracy": scores.accuracy,
        "cv/precision": scores.precision,
        "cv/recall": scores.recall,
        "false_alarm_rate": scores.false_alarm_rate,
        "missed_alarm_rate": scores.missed_alarm_rate,
    }
