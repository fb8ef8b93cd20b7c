"""Exact pixels: `pixel` (precision, recall, F1) and `overlap` (also Dice and IoU)."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from fissura.metrics.counts import Counts
from fissura.metrics.protocol import Protocol
from fissura.metrics.scores import Measure, Scores, score_overlap


class _Exact(Protocol):
    def score(self, counts: Counts, level: int) -> Scores:
        """The scores at one level (0..255), with Dice and IoU."""
        return score_overlap(counts, level)

    def right(self, labelled: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """The labelled pixels."""
        return labelled

    def found(
        self,
        probability: UInt8[np.ndarray, "h w"],
        labelled: Bool[np.ndarray, "h w"],
        true_positive: Int64[np.ndarray, "256"],
    ) -> tuple[Int64[np.ndarray, "256"], Int64[np.ndarray, "256"]]:
        """A labelled pixel is found where it is predicted itself."""
        return true_positive, true_positive[0] - true_positive


class Pixel(_Exact):
    """A predicted pixel is right if it is labelled (CIRL, JTFN, most papers)."""

    kind: Literal["pixel"] = "pixel"


class Overlap(_Exact):
    """The counts of `pixel`, reported as Dice and IoU too (Isnan)."""

    kind: Literal["overlap"] = "overlap"
    measures: ClassVar[tuple[Measure, ...]] = ("precision", "recall", "f1", "dice", "iou")
