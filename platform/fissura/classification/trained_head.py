"""The head that a backbone was trained with, read from the training's directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from fissura.classical.compact import Compact
from fissura.classical.compression import Compression
from fissura.classical.quantisation import stored
from fissura.classification.backbone import HEAD, HEAD_SHA, RESULT, read_backbone
from fissura.core.errors import DataError


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """The weights of a linear head, a row a class, and its bias."""

    weight: Float32[np.ndarray, "c d"]
    bias: Float32[np.ndarray, " c"]

    @classmethod
    def read(cls, directory: Path) -> "TrainedHead":
        """The head of the finished training in `directory`.

        Raises:
            DataError: there is no finished training, it is damaged, or it kept no head (earlier versions).
        """
        from safetensors.numpy import load_file

        if HEAD_SHA not in read_backbone(directory):
            raise DataError(
                f"{directory / HEAD}: `classifier.kind: head` predicts by the head that its backbone learnt"
                f" with, and this one was trained before heads were kept; remove {RESULT} there, then train"
                " again, or set `classifier.kind` to svm or forest"
            )
        tensors = load_file(directory / HEAD)
        return cls(tensors["weight"], tensors["bias"])

    def compact(self, *, classes: Sequence[str], compression: Compression) -> Compact:
        """The head as a `Compact`; `classes` names its classes 0, 1, ..."""
        weights, _ = stored("coefficients", self.weight.T, bits=compression.bits)
        return Compact(
            "softmax",
            classes=list(classes),
            labels=list(range(len(classes))),
            width=self.weight.shape[1],
            arrays=weights | {"intercept": self.bias},
        )
