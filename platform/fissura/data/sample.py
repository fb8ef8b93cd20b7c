"""A sample: one image, its mask and its split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")

PURPOSES: dict[Split, str] = {
    "train": "learn from",
    "val": "choose a model and its threshold by",
}
"""The purpose of a split's images in a training."""


@dataclass(frozen=True)
class Sample:
    """One image with its mask.

    `name` is unique in its data set and usable as a file name, such as "001". Samples of one `group` stay in
    one of the splits that this project draws: they are crops of one photograph, or show the same place.
    `valid` is the mask of valid pixels (the field of view), or None if every pixel counts.
    """

    name: str
    split: Split
    group: str
    image: Path
    mask: Path
    valid: Path | None = None
