"""Synthetic cracks of exactly known geometry, as `fissura.data.synthetic` draws them."""

from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.datasets.folder import gather_splits
from fissura.data.walk import Walk


class Synthetic(Dataset):
    """Layout: `images/{train,val,test}/*.png`, `masks/{train,val,test}/*.png`, and `truth.json` with the
    exact geometry.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Synthetic cracks",
        licence="Apache-2.0, as this project",
        citation="",
        obtain="drawn by this project: `fissura demo`",
        layout="images/{train,val,test}/*.png, masks/{train,val,test}/*.png and truth.json",
        counts={},
    )
    kind: Literal["synthetic"] = "synthetic"

    def gather(self, walk: Walk) -> None:
        gather_splits(walk)
        if walk.root.is_dir() and not (walk.root / "truth.json").is_file():
            walk.notes.append(f"{walk.root / 'truth.json'}: missing, so the exact geometry is unknown")
