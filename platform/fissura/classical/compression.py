"""The methods that make a fitted classifier small, and the classifiers they fit."""

from typing import Literal

from pydantic import Field

from fissura.core.errors import SpecError
from fissura.core.spec import Spec

Method = Literal["none", "prune", "fourier", "nystroem", "reduced_set"]


class Compression(Spec):
    """How a fitted classifier is made small.

    method
        none         all support vectors, all trees, or all of a head
        prune        without the `share` of the support vectors, or of the leaves, that matters least; a
                     forest also keeps only the `components` strongest features, and is grown again on them
        fourier      `components` random Fourier features (Rahimi and Recht, 2007) and a linear head
        nystroem     `components` landmarks, the centres of k-means (Zhang et al., 2008)
        reduced_set  the same, then optimised (Schölkopf et al., 1999)
    rank         of a support vector machine: the number of directions of the features that are kept, those
                 along which the decision changes most; None: all. Method `none` always keeps all
    bits         32: float32; 8: int8 with a step a column, thresholds and leaves too
    """

    method: Method = "none"
    share: float = Field(0.4, ge=0, lt=1)
    components: int = Field(256, ge=1, le=65_536)
    rank: int | None = Field(16, ge=1)
    bits: Literal[32, 8] = 32


def check_method(compression: Compression, *, classifier: Literal["svm", "forest"]) -> None:
    """Checks that a compression fits a kind of classifier.

    Raises:
        SpecError: it does not.
    """
    if classifier == "forest" and compression.method not in ("none", "prune"):
        raise SpecError(
            f"`compression.method`: a forest has no kernel, and `{compression.method}` replaces one; "
            "take `prune` or `none`, or the classifier `svm`"
        )
