"""DeepCrack (Liu et al.): 537 photographs of concrete and asphalt at several scales."""

from pathlib import Path
from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import LOSSY_THRESHOLD, MaskReading, decode_mask
from fissura.data.walk import Walk


class DeepCrack(Dataset):
    """Layout: the publisher's `train_img`, `train_lab`, `test_img`, `test_lab` (544x384), or
    `images/{train,test}` and `masks/{train,test}`, the layout of resized copies, whose masks hold resampled
    greys (threshold 127).

    Split: official, 300 / 237. Photographs named `NAME-1`, `NAME-2` are one group.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="DeepCrack",
        licence="non-commercial research and education only",
        citation="Liu, Yao, Lu, Xie, Li: DeepCrack: a deep hierarchical feature learning architecture for "
        "crack "
        "segmentation. Neurocomputing 338, 2019",
        obtain="https://github.com/yhlleo/DeepCrack",
        layout="{train,test}_img/*.jpg and {train,test}_lab/*.png, or images/{train,test} and "
        "masks/{train,test}",
        counts={"train": 300, "test": 237},
    )
    kind: Literal["deepcrack"] = "deepcrack"

    def gather(self, walk: Walk) -> None:
        for split in ("train", "test"):
            walk.pair(
                split,
                images=walk.files(f"{split}_img", f"images/{split}"),
                masks=walk.files(f"{split}_lab", f"masks/{split}"),
                group=lambda stem: stem.split("-")[0],
            )

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=LOSSY_THRESHOLD)
