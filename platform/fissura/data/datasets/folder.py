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

LAYOUT = (
    "images/NAME.png and masks/NAME.png, JPEG, TIFF, BMP, GIF and WebP too; if there are splits, in train/,"
    " val/, test/ below both, or both below each of these"
)


SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def gather_splits(walk: Walk, *, prefix: str = "", suffix: str = "") -> None:
    """Pairs `images/` with `masks/` (and `valid/`) by the splits in `images/`; where the root has no
    `images/`, by the split folders that have one; else all as "train". `Train/` is `train/`.

    The stems of masks are those of their images between `prefix` and `suffix`.
    """

    def image_stem(stem: str) -> str:
        return stem.removeprefix(prefix).removesuffix(suffix)

    def pair(split: Split, images: Sequence[str], masks: Sequence[str], valid: Sequence[str]) -> None:
        walk.pair(
            split,
            images=walk.files(*images),
            masks=walk.files(*masks, key=image_stem),
            valid=walk.files(*valid, key=image_stem) if valid else None,
        )

    folders = walk.folders(".")
    named = [
        (split, folders[name]) for split, names in SPLIT_FOLDERS.items() for name in names if name in folders
    ]
    outside = [(split, folder) for split, folder in named if walk.has(f"{folder}/images")]
    if outside and not walk.has("images"):
        for split, folder in outside:
            valid = [f"{folder}/valid"] if walk.has(f"{folder}/valid") else []
            pair(split, [f"{folder}/images"], [f"{folder}/masks"], valid)
        walk.watch(".", *(folder for _, folder in outside))
        return
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
        valid = places("valid", names) if walk.has("valid") else []
        pair(split, places("images", names[:1]), places("masks", names), valid)
    walk.watch(".", "images", "masks", "valid")


class Folder(Dataset):
    """Layout: `images/` and `masks/` with files of equal stems, either directly or in `train/`, `val/` (or
    `valid/`, `validation/`), `test/` below both, or both below each of these; optionally `valid/`, laid out
    alike, with masks of the pixels that count.

    Masks hold 0 and 255; in grey ones, pixels above `mask_threshold` (0..254) are crack; their stems are
    those of the images between `mask_prefix` and `mask_suffix`. In `--data` they are options,
    `folder:ROOT?suffix=_mask&threshold=127`. Split: by the folders; without them "test" and "val" are drawn
    by seed, each image its own group.
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
    mask_prefix: str = ""

    @model_serializer(mode="wrap")
    def _plain(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without empty prefix and suffix, as before they existed: the digests of data stay equal."""
        added = ("mask_prefix", "mask_suffix")
        return {key: value for key, value in plain(self).items() if key not in added or value}

    @property
    def layout(self) -> str:
        return LAYOUT.replace("masks/NAME", f"masks/{self.mask_prefix}NAME{self.mask_suffix}")

    def gather(self, walk: Walk) -> None:
        gather_splits(walk, prefix=self.mask_prefix, suffix=self.mask_suffix)

    def divide(self, samples: list[Sample]) -> list[Sample]:
        if {sample.split for sample in samples} == {"train"}:
            samples = carve(samples, source="train", target="test", share=self.test_share, seed=self.seed)
        return super().divide(samples)

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=self.mask_threshold)
