"""Scores that sweep the threshold over the images they are scored on: ODS, OIS and AP.

ODS, the best F1 of one threshold for the data set, and OIS, the best F1 of a threshold for each image, are of
Arbelaez et al., "Contour detection and hierarchical image segmentation", 2011. Both choose on test data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fissura.metrics.counts import Counts, pool
from fissura.metrics.scores import Scores, best_threshold, level_of, rates, score


@dataclass(frozen=True)
class ThresholdSweep:
    """Over the thresholds k / 255, k = 1..255; all scores 0..1.

    `ods` is the pooled score at `threshold`, where pooled F1 is highest (the lowest such k). `ois_mean` and
    `ois_sd` are the mean and the population standard deviation of each image's highest F1.
    `average_precision` is of the pooled curve.
    """

    ods: Scores
    threshold: float
    ois_mean: float
    ois_sd: float
    average_precision: float

    def plain(self) -> dict[str, Any]:
        """The sweep as JSON types."""
        ods = {"precision": self.ods.precision, "recall": self.ods.recall, "f1": self.ods.f1}
        return {
            "ods": {**ods, "threshold": self.threshold},
            "ois": {"mean": self.ois_mean, "sd": self.ois_sd},
            "ap": self.average_precision,
        }


def sweep(counts: Sequence[Counts]) -> ThresholdSweep:
    """ODS, OIS and AP of a data set, from the counts of its images (at least one)."""
    pooled = pool(counts)
    threshold = best_threshold(pooled)
    best = [float(rates(one).f1[1:].max()) for one in counts]
    return ThresholdSweep(
        ods=score(pooled, level_of(threshold)),
        threshold=threshold,
        ois_mean=float(np.mean(best)),
        ois_sd=float(np.std(best)),
        average_precision=average_precision(pooled),
    )


def average_precision(counts: Counts) -> float:
    """Stepwise area under the curve: the sum over k = 255..1 of (R_k - R_(k+1)) P_k, where R_256 = 0.

    Where nothing is labelled there is no curve: 1 if nothing is predicted either, at any k >= 1, else 0.
    """
    if counts.found[0] + counts.missed[0] == 0:
        return float(counts.false_positive[1] == 0)
    at = rates(counts)
    steps = np.diff(at.recall[:0:-1], prepend=0.0)
    return float(np.sum(steps * at.precision[:0:-1]))
