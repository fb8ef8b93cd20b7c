"""Crack and no-crack squares cut from a data set with masks."""

from typing import ClassVar, Literal

import numpy as np

from fissura.data.dataset import DatasetInfo
from fissura.data.labelled.grid import NEITHER, Grid, Labels, Mask
from fissura.data.labelled.squares import CutSquares


class Patches(CutSquares):
    """A square has a crack where at least `crack_share` of its pixels are crack, and none where neither it
    nor the `margin` around it holds a crack pixel; squares between are skipped.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Crack and no-crack squares cut from a data set with masks",
        licence="that of the data set they are cut from",
        citation="",
        obtain="patches:KIND:ROOT, with the kind and the root of a data set with masks",
        layout="that of the data set they are cut from",
        counts={},
    )
    kind: Literal["patches"] = "patches"

    @property
    def label_text(self) -> str:
        return f"{self.kind}:{self.source_text}"

    def classes(self) -> tuple[str, ...]:
        return ("no_crack", "crack")

    def label(self, mask: Mask, grid: Grid) -> Labels:
        crack = grid.count(mask) >= self.crack_share * self.size**2
        plain = grid.count(mask, margin=self.margin) == 0
        return np.where(crack, 1, np.where(plain, 0, NEITHER))
