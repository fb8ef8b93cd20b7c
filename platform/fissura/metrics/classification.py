"""The protocol `classification`: what the counts of a confusion matrix say, and the area under the ROC curve.

Class 0 is the lowest level: no crack, or a minor one. With two classes precision, recall and F1 are those of
class 1; with more they are the mean over classes (macro), as scikit-learn's `average="macro"`. An alarm is a
prediction above the lowest level, whatever the number of levels.

Every score is a function of a confusion matrix, over any leading axes, so that a bootstrap is one matrix
product: draws [replicates, groups] times counts [groups, classes * classes].

Edge cases. A class that is neither labelled nor predicted has precision, recall and F1 1; one that is only
labelled or only predicted has 0 in all three. The mean over more than two classes leaves out a class that is
neither labelled nor predicted, as scikit-learn does, and is 1 where nothing is left. Accuracy, a rate of
alarms and the area are undefined where they would divide by nothing: nan in arrays, None in `ClassScores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, Integer

from fissura.core.errors import DataError

Confusions = Float64[np.ndarray, "*lead label prediction"] | Int64[np.ndarray, "*lead label prediction"]
Values = Float64[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class ClassRates:
    """The scores of confusion matrices [..., c, c]: each [...], those of classes [..., c]; 0..1 or nan.

    `false_alarm_rate` = false positives / negatives and `missed_alarm_rate` = false negatives / positives,
    where the positives are all that is labelled above the lowest level.
    """

    accuracy: Values
    precision: Values
    recall: Values
    f1: Values
    false_alarm_rate: Values
    missed_alarm_rate: Values
    class_precision: Values
    class_recall: Values
    class_f1: Values


SCORES = ("f1", "precision", "recall", "accuracy", "false_alarm_rate", "missed_alarm_rate")


TELLING_APART = ("f1", "precision", "recall", "class_")
"""How the names of the scores begin that say how well classes are told apart."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The scores of one set of images, each 0..1; None where undefined.

    The `class_` scores hold one value a class, the lowest level first. `roc_auc` is None for more than two
    classes, where one class alone is labelled, and without decision values.
    """

    accuracy: float | None
    precision: float
    recall: float
    f1: float
    false_alarm_rate: float | None
    missed_alarm_rate: float | None
    roc_auc: float | None
    class_precision: tuple[float, ...]
    class_recall: tuple[float, ...]
    class_f1: tuple[float, ...]


def confusion(
    labels: Int[np.ndarray, " image"], predictions: Int[np.ndarray, " image"], classes: int
) -> Int64[np.ndarray, "label prediction"]:
    """How many images of each label (row) were given each class (column).

    Raises:
        DataError: unlike lengths, fewer than two classes, or a value outside 0..classes - 1.
    """
    if classes < 2:
        raise DataError(f"there are at least two classes, not {classes}; name every level")
    if labels.shape != predictions.shape or labels.ndim != 1:
        shapes = f"{list(labels.shape)} and {list(predictions.shape)}"
        raise DataError(
            f"labels and predictions are one value an image, not {shapes}; give both of all images"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        wrong = values[(values < 0) | (values >= classes)]
        if len(wrong):
            raise DataError(f"{name} are 0 to {classes - 1}, not {wrong[0]}; number the classes from 0")
    cells = labels.astype(np.int64) * classes + predictions
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def class_rates(confusions: Confusions) -> ClassRates:
    """Every score of each confusion matrix; rows are labels, columns predictions."""
    counts = np.asarray(confusions, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    labelled, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    absent = (labelled + predicted == 0).astype(np.float64)
    precision = _divided(right, predicted, empty=absent)
    recall = _divided(right, labelled, empty=absent)
    f1 = _divided(2 * right, labelled + predicted, empty=absent)
    kinds = (precision, recall, f1)
    if counts.shape[-1] == 2:
        whole = [one[..., 1] for one in kinds]
    else:
        present = 1 - absent
        whole = [_divided((one * present).sum(-1), present.sum(-1), empty=1.0) for one in kinds]
    negatives, positives = labelled[..., 0], labelled[..., 1:].sum(-1)
    return ClassRates(
        accuracy=_divided(right.sum(-1), labelled.sum(-1), empty=np.nan),
        precision=whole[0],
        recall=whole[1],
        f1=whole[2],
        false_alarm_rate=_divided(counts[..., 0, 1:].sum(-1), negatives, empty=np.nan),
        missed_alarm_rate=_divided(counts[..., 1:, 0].sum(-1), positives, empty=np.nan),
        class_precision=precision,
        class_recall=recall,
        class_f1=f1,
    )


def _divided(part: Values, whole: Values, *, empty: Values | float) -> Values:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), empty)


def roc_auc(
    labels: Int[np.ndarray, " image"],
    decisions: Float[np.ndarray, " image"],
    *,
    weights: Float64[np.ndarray, "replicate image"] | Integer[np.ndarray, "replicate image"] | None = None,
) -> Float64[np.ndarray, " replicate"]:
    """The area under the ROC curve of two classes (0 and 1), once a row of `weights`; nan where undefined.

    It is the share of pairs (one image of each class) in which class 1 has the larger decision value; a tie
    counts half. `weights` says how often each image counts; None is one row of ones.

    Raises:
        DataError: a decision value is not finite.
    """
    check_finite(decisions)
    times = (np.ones((1, len(labels))) if weights is None else weights).T
    above, below = (_ranked(decisions, np.flatnonzero(labels == value)) for value in (1, 0))
    beaten = np.zeros((len(below) + 1, times.shape[1]))
    np.cumsum(times[below], axis=0, out=beaten[1:])
    own = times[above].astype(np.float64)
    # How many of class 0 lie strictly below each image of class 1, and how many at or below it.
    first, last = (np.searchsorted(decisions[below], decisions[above], side) for side in ("left", "right"))
    ends = [np.einsum("ir,ir->r", own, beaten[place]) for place in (first, last)]
    return _divided((ends[0] + ends[1]) / 2, own.sum(axis=0) * beaten[-1], empty=np.nan)


def _ranked(
    decisions: Float[np.ndarray, " image"], images: Int[np.ndarray, " some"]
) -> Int[np.ndarray, " some"]:
    return images[np.argsort(decisions[images], kind="stable")]


def check_finite(decisions: Float[np.ndarray, "..."]) -> None:
    """Looks whether every decision value is finite.

    Raises:
        DataError: one is not.
    """
    wrong = np.count_nonzero(~np.isfinite(decisions))
    if wrong:
        share = f"{wrong} of {decisions.size}"
        raise DataError(f"decision values are finite, {share} are not; look for nan among the features")


def class_scores(
    labels: Int[np.ndarray, " image"],
    predictions: Int[np.ndarray, " image"],
    *,
    classes: int,
    decisions: Float[np.ndarray, "image pair"] | None = None,
) -> ClassScores:
    """Every score of one set of images.

    Args:
        labels: 0..classes - 1.
        predictions: likewise.
        classes: the number of levels, at least 2.
        decisions: of two classes one column, larger where class 1 is likelier; finite.

    Raises:
        DataError: as `confusion`; a decision value is not finite.
    """
    rates = class_rates(confusion(labels, predictions, classes))
    area = np.nan
    if decisions is not None:
        check_finite(decisions)
        if classes == 2 and decisions.shape[1] == 1:
            area = float(roc_auc(labels, decisions[:, 0])[0])
    return ClassScores(
        accuracy=_known(rates.accuracy),
        precision=float(rates.precision),
        recall=float(rates.recall),
        f1=float(rates.f1),
        false_alarm_rate=_known(rates.false_alarm_rate),
        missed_alarm_rate=_known(rates.missed_alarm_rate),
        roc_auc=_known(area),
        class_precision=tuple(rates.class_precision.tolist()),
        class_recall=tuple(rates.class_recall.tolist()),
        class_f1=tuple(rates.class_f1.tolist()),
    )


def one_class(labels: Int[np.ndarray, " image"], classes: Sequence[str]) -> str:
    """What is to be said of images that are all of one class, by name; nothing where two are labelled.

    Precision, recall and F1 tell classes apart, and say nothing of such images.
    """
    known = np.unique(labels)
    if len(known) != 1:
        return ""
    alarms = "missed alarms" if known[0] else "false alarms"
    return f"no image but of the class `{classes[int(known[0])]}`: {alarms} only"


def _known(value: Values | float) -> float | None:
    return None if np.isnan(value) else float(value)
