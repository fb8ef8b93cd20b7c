"""CrackTree200: 206 photographs of pavement, 800x600, with one-pixel crack lines."""

from pathlib import Path
from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import LOSSY_THRESHOLD, MaskReading, decode_mask
from fissura.data.sample import Sample
from fissura.data.splits import carve
from fissura.data.walk import Walk


class CrackTree200(Dataset):
    """Layout: `cracktree200rgb/*.jpg` and `cracktree200_gt/*.png`, possibly nested in a folder of the same
    name.

    Split: none is official; 164 training images and the rest for testing (Chen et al., CVPR 2024) are drawn
    by seed. CrackTree260 extends this set: never train on one and test on the other.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="CrackTree200 (206 images)",
        licence="academic research",
        citation="Zou, Cao, Li, Mao, Wang: CrackTree: automatic crack detection from pavement images. "
        "Pattern Recognition "
        "Letters 33(3), 2012",
        obtain="https://github.com/fyangneil/pavement-crack-detection",
        layout="cracktree200rgb/*.jpg and cracktree200_gt/*.png",
        counts={"train": 164, "test": 42},
    )
    kind: Literal["cracktree200"] = "cracktree200"

    def gather(self, walk: Walk) -> None:
        walk.pair(
            "train",
            images=walk.files("cracktree200rgb/cracktree200rgb", "cracktree200rgb"),
            masks=walk.files("cracktree200_gt/cracktree200_gt", "cracktree200_gt"),
        )

    def divide(self, samples: list[Sample]) -> list[Sample]:
        return super().divide(carve(samples, source="train", target="test", share=42 / 206, seed=self.seed))

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=LOSSY_THRESHOLD)
