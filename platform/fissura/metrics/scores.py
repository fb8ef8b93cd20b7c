"""From counts to scores: precision, recall, F1, Dice and IoU at a level, and the choice of the threshold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from fissura.core.rules import no_probability
from fissura.metrics.counts import LEVELS, Counts

Measure = Literal["precision", "recall", "f1", "dice", "iou"]


@dataclass(frozen=True)
class Scores:
    """Scores of an image or a data set, each 0..1. `dice` and `iou` are None where the protocol has none."""

    precision: float
    recall: float
    f1: float
    dice: float | None = None
    iou: float | None = None


@dataclass(frozen=True, eq=False)
class Rates:
    """Precision, recall and F1 at each level, float64 [256]."""

    precision: Float64[np.ndarray, "256"]
    recall: Float64[np.ndarray, "256"]
    f1: Float64[np.ndarray, "256"]


def rates(counts: Counts) -> Rates:
    """Precision, recall and F1 = 2 P R / (P + R) at every level.

    Nothing labelled and nothing predicted: all three 1. Exactly one of the two empty: all three 0.
    """
    predicted = counts.true_positive + counts.false_positive
    labelled = counts.found + counts.missed
    agree = (predicted == 0) & (labelled == 0)
    precision = np.where(agree, 1.0, counts.true_positive / np.maximum(predicted, 1))
    recall = np.where(agree, 1.0, counts.found / np.maximum(labelled, 1))
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros(LEVELS), where=total > 0)
    return Rates(precision, recall, f1)


def score(counts: Counts, level: int) -> Scores:
    """Precision, recall and F1 at one level (0..255)."""
    at = rates(counts)
    return Scores(float(at.precision[level]), float(at.recall[level]), float(at.f1[level]))


def score_overlap(counts: Counts, level: int) -> Scores:
    """Precision, recall, F1, Dice and IoU at one level (0..255); only for counts of exact pixels.

    Dice = 2 TP / (2 TP + FP + FN) equals F1, IoU = TP / (TP + FP + FN); both 1 where both are empty.
    """
    plain = score(counts, level)
    right = int(counts.true_positive[level])
    union = right + int(counts.false_positive[level]) + int(counts.missed[level])
    return replace(plain, dice=plain.f1, iou=right / union if union else 1.0)


def mean(scores: Sequence[Scores]) -> Scores:
    """The mean of each score over images (macro). At least one image, all of one protocol."""

    def average(values: list[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        return float(np.mean(present)) if present else None

    return Scores(
        float(np.mean([one.precision for one in scores])),
        float(np.mean([one.recall for one in scores])),
        float(np.mean([one.f1 for one in scores])),
        average([one.dice for one in scores]),
        average([one.iou for one in scores]),
    )


def level_of(threshold: float) -> int:
    """The level of a threshold (0..1): the smallest k with k / 255 >= threshold.

    Value >= level is then exactly value / 255 >= threshold, as float64 has it.

    Raises:
        ValueError: the threshold is not in 0..1.
    """
    if wrong := no_probability(threshold):
        raise ValueError(wrong)
    return int(np.searchsorted(np.arange(LEVELS) / 255, threshold, side="left"))


def best_threshold(counts: Counts) -> float:
    """The threshold k / 255, k = 1..255, of the highest F1, the lowest of a tie. Pool a data set first."""
    return (int(np.argmax(rates(counts).f1[1:])) + 1) / 255
