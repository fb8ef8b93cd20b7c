"""What an evaluation protocol is: a named, frozen rule of which pixels count as right and which as found."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from fissura.core.spec import Spec
from fissura.metrics.counts import Counts, at_or_above
from fissura.metrics.scores import Measure, Scores, score


class Protocol(Spec, ABC):
    """Base of the protocols. A kind says what is `right` and what is `found`; the counting is here, once.

    `measures` are the scores that its reports show. `swept` is True where its published form also sweeps the
    threshold over the test images (ODS, OIS, AP).
    """

    kind: str
    measures: ClassVar[tuple[Measure, ...]] = ("precision", "recall", "f1")
    swept: ClassVar[bool] = False

    def __str__(self) -> str:
        """The name that `parse_protocol` reads, such as `tolerant:2`."""
        parameters = [value for name, value in self if name != "kind"]
        return ":".join(
            [self.kind, *(str(int(value) if value == int(value) else value) for value in parameters)]
        )

    def count(
        self,
        probability: UInt8[np.ndarray, "h w"],
        mask: UInt8[np.ndarray, "h w"],
        valid: UInt8[np.ndarray, "h w"] | None = None,
    ) -> Counts:
        """The counts of one image at all 256 levels.

        `probability` is the map in 1/255. A pixel is labelled where `mask` is not 0 and valid where `valid`
        is not 0; one that is not valid is neither labelled nor predicted, at any level, and is not counted.

        Raises:
            ValueError: the map is not uint8, or the shapes differ.
        """
        shapes = {array.shape for array in (probability, mask, valid) if array is not None}
        if probability.dtype != np.uint8 or len(shapes) > 1:
            raise ValueError(
                f"a map is uint8 and as large as its masks, not {probability.dtype} and {shapes}"
            )
        labelled = mask != 0
        if valid is None:
            right = self.right(labelled)
            predicted = at_or_above(probability)
        else:
            inside = valid != 0
            probability = probability * inside
            labelled &= inside
            right = self.right(labelled) & inside
            predicted = at_or_above(probability)
            predicted[0] -= np.count_nonzero(~inside)  # the zeros put there, which level 0 alone counts
        true_positive = at_or_above(probability[right])
        found, missed = self.found(probability, labelled, true_positive)
        return Counts(true_positive, predicted - true_positive, found, missed)

    def score(self, counts: Counts, level: int) -> Scores:
        """The scores at one level (0..255), of one image's counts or of pooled ones."""
        return score(counts, level)

    @abstractmethod
    def right(self, labelled: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """The pixels where a prediction is right."""

    @abstractmethod
    def found(
        self,
        probability: UInt8[np.ndarray, "h w"],
        labelled: Bool[np.ndarray, "h w"],
        true_positive: Int64[np.ndarray, "256"],
    ) -> tuple[Int64[np.ndarray, "256"], Int64[np.ndarray, "256"]]:
        """`found` and `missed` at each level, where `true_positive` is known."""
