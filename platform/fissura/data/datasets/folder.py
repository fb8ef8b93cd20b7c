"""A plain folder of images and masks: anyone's own data."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import MaskReading, decode_mask
from fissura.data.sample import SPLITS, Sample
from fissura.data.splits import carve
from fissura.data.walk import Walk

LAYOUT = "images/*.png and masks/*.png of equal stems, in train/, val/, test/ below both if there are splits"


def gather_splits(walk: Walk) -> None:
    """Pairs `images/` with `masks/` (and `valid/`), by the splits that `images/` has, else all as "train"."""
    present = [split for split in SPLITS if walk.has(f"images/{split}")]
    for split, below in [(split, f"/{split}") for split in present] or [("train", "")]:
        walk.pair(
            split,
            images=walk.files(f"images{below}"),
            masks=walk.files(f"masks{below}"),
            valid=walk.files(f"valid{below}") if walk.has("valid") else None,
        )


class Folder(Dataset):
    """Layout: `images/` and `masks/` with files of equal stems, either directly or in `train/`, `val/`,
    `test/` below both; optionally `valid/`, laid out alike, with masks of the pixels that count.

    Masks hold 0 and 255; `mask_threshold` (0..254) reads grey ones, above it is crack. Split: as the folders
    say; without them "test" and "val" are drawn by seed, an image being its own group.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="A folder of your own images and masks",
        licence="yours",
        citation="",
        obtain="your own photographs; draw the masks with any tool that saves 0 and 255 as PNG",
        layout=LAYOUT,
        counts={},
    )
    kind: Literal["folder"] = "folder"
    test_share: float = Field(0.2, gt=0, lt=1)
    mask_threshold: int | None = Field(None, ge=0, le=254)

    def gather(self, walk: Walk) -> None:
        gather_splits(walk)

    def divide(self, samples: list[Sample]) -> list[Sample]:
        if {sample.split for sample in samples} == {"train"}:
            samples = carve(samples, source="train", target="test", share=self.test_share, seed=self.seed)
        return super().divide(samples)

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=self.mask_threshold)
