"""A sample: one image, its mask, and the split they stand in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")

PURPOSES: dict[Split, str] = {
    "train": "learn from",
    "val": "choose a model and its threshold by",
}
"""What a training needs the images of a split for."""


@dataclass(frozen=True)
class Sample:
    """One image with its mask.

    `name` is unique in its data set and usable as a file name, such as "001". Samples of one `group` never
    straddle splits that this project draws: they are crops of one photograph, or the same place seen twice.
    `valid` is the mask of valid pixels (the field of view), or None where every pixel counts.
    """

    name: str
    split: Split
    group: str
    image: Path
    mask: Path
    valid: Path | None = None
