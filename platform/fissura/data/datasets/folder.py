"""A plain folder of images and masks: anyone's own data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import MaskReading, decode_mask
from fissura.data.sample import Sample, Split
from fissura.data.splits import carve
from fissura.data.walk import Walk

LAYOUT = "images/*.png and masks/*.png of equal stems, in train/, val/, test/ below both if there are splits"


SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def gather_splits(walk: Walk, *, suffix: str = "") -> None:
    """Pairs `images/` with `masks/` (and `valid/`), by the splits that `images/` has, else all as "train".
    `Train/` is `train/`.

    `suffix` is what the stems of the masks have behind those of their images.
    """

    def image_stem(stem: str) -> str:
        return stem.removesuffix(suffix)

    spelled = {folder: walk.folders(folder) for folder in ("images", "masks", "valid")}

    def places(folder: str, names: Sequence[str]) -> list[str]:
        return [f"{folder}/{spelled[folder].get(name, name)}" if name else folder for name in names]

    splits: list[tuple[Split, list[str]]] = [
        (split, [name, *(other for other in names if other != name)])
        for split, names in SPLIT_FOLDERS.items()
        for name in names
        if name in spelled["images"]
    ]
    for split, names in splits or [("train", [""])]:
        walk.pair(
            split,
            images=walk.files(*places("images", names[:1])),
            masks=walk.files(*places("masks", names), key=image_stem),
            valid=walk.files(*places("valid", names), key=image_stem) if walk.has("valid") else None,
        )
    walk.watch(".", "images", "masks", "valid")


class Folder(Dataset):
    """Layout: `images/` and `masks/` with files of equal stems, either directly or in `train/`, `val/` (or
    `valid/`, `validation/`), `test/` below both; optionally `valid/`, laid out alike, with masks of the
    pixels that count.

    Masks hold 0 and 255; `mask_threshold` (0..254) reads grey ones, above it is crack; `mask_suffix` is what
    their stems have behind those of the images. In `--data` both are options,
    `folder:ROOT?suffix=_mask&threshold=127`. Split: as the folders say; without them "test" and "val" are
    drawn by seed, an image being its own group.
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
    mask_suffix: str = ""

    @model_serializer(mode="wrap")
    def _plain(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a suffix as before there was one, so that the digests of data are what they were."""
        return {key: value for key, value in plain(self).items() if key != "mask_suffix" or value}

    def gather(self, walk: Walk) -> None:
        gather_splits(walk, suffix=self.mask_suffix)

    def divide(self, samples: list[Sample]) -> list[Sample]:
        if {sample.split for sample in samples} == {"train"}:
            samples = carve(samples, source="train", target="test", share=self.test_share, seed=self.seed)
        return super().divide(samples)

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=self.mask_threshold)
