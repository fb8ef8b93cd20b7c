"""The scores of segmentations as functions of sums over images."""

from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Float64

from fissura.metrics.false_alarms import per_image, per_megapixel
from fissura.reports.statistics import Scores, Sums

COUNTS = ("true_positive", "false_positive", "found", "missed")
MEANS = ("precision", "recall", "f1", "dice", "iou")
# of an image without a crack 1, its false alarms and its valid pixels; of every other image 0
ALARMS = ("crack_free", "alarm_components", "alarm_pixels", "alarm_area")
FEATURES = COUNTS + MEANS + ALARMS


def ratio(part: Scores, other: Scores, *, empty: Scores) -> Scores:
    """part / (part + other), and `empty` where both are 0."""
    whole = part + other
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), empty)


def micro_precision(sums: Sums) -> Scores:
    """tp / (tp + fp) of summed counts; with nothing predicted 1 if nothing was labelled either, else 0."""
    nothing_labelled = (sums[..., 2] + sums[..., 3] == 0).astype(np.float64)
    return ratio(sums[..., 0], sums[..., 1], empty=nothing_labelled)


def micro_recall(sums: Sums) -> Scores:
    """found / (found + missed) of summed counts; with nothing labelled 1 if nothing was predicted, else 0."""
    nothing_predicted = (sums[..., 0] + sums[..., 1] == 0).astype(np.float64)
    return ratio(sums[..., 2], sums[..., 3], empty=nothing_predicted)


def micro_f1(sums: Sums) -> Scores:
    """2PR / (P + R) of the micro precision and recall; 0 where both are 0."""
    precision, recall = micro_precision(sums), micro_recall(sums)
    whole = precision + recall
    return np.where(whole > 0, 2 * precision * recall / np.where(whole > 0, whole, 1.0), 0.0)


def _mean_of(name: str) -> Callable[[Sums], Scores]:
    column = FEATURES.index(name)
    return lambda means: means[..., column]


# Each takes the means of FEATURES over images: a ratio of sums is the same ratio of means.
STATISTICS: dict[str, Callable[[Sums], Scores]] = {
    "precision": micro_precision,
    "recall": micro_recall,
    "f1": micro_f1,
    **{f"macro_{name}": _mean_of(name) for name in ("precision", "recall", "f1")},
    "dice": _mean_of("dice"),
    "iou": _mean_of("iou"),
}


def _alarms(amount: str, rate: Callable[[Scores, Scores], Scores], of: str) -> Callable[[Sums], Scores]:
    part, whole = FEATURES.index(amount), FEATURES.index(of)
    return lambda means: rate(means[..., part], means[..., whole])


# Of the images without a crack; undefined where there are none.
FALSE_ALARMS: dict[str, Callable[[Sums], Scores]] = {
    "false_alarms_per_image": _alarms("alarm_components", per_image, "crack_free"),
    "false_alarms_per_megapixel": _alarms("alarm_components", per_megapixel, "alarm_area"),
    "false_pixels_per_image": _alarms("alarm_pixels", per_image, "crack_free"),
    "false_pixels_per_megapixel": _alarms("alarm_pixels", per_megapixel, "alarm_area"),
}


def resting_on_one(features: Float64[np.ndarray, "seed image feature"]) -> Collection[str]:
    """The scores of `crack_scores` for which one image alone counts: false alarms, where one has no crack."""
    free = np.count_nonzero(features[..., FEATURES.index("crack_free")].any(axis=0))
    return FALSE_ALARMS if free == 1 else ()


def crack_scores(sums: Sums, *, images: int) -> dict[str, Scores]:
    """Every one of STATISTICS and FALSE_ALARMS from the sums of FEATURES over so many images; nan where it is
    undefined: what a protocol lacks, STATISTICS where no image holds a crack, and FALSE_ALARMS where each
    holds one."""
    means = sums / images
    nothing = means[..., FEATURES.index("crack_free")] == 1
    return {name: np.where(nothing, np.nan, statistic(means)) for name, statistic in STATISTICS.items()} | {
        name: statistic(means) for name, statistic in FALSE_ALARMS.items()
    }
