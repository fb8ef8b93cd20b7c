"""The four sets of DeepCrack (Zou et al.): CrackTree260 to train on, CRKWH100, CrackLS315 and Stone331 to
test on.

Their masks are lines one pixel wide.
"""

from abc import ABC
from pathlib import Path
from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import LOSSY_THRESHOLD, MaskReading, decode_mask
from fissura.data.sample import Sample
from fissura.data.splits import carve
from fissura.data.walk import Walk


def _info(name: str, surface: str, counts: dict[str, int], layout: str) -> DatasetInfo:
    return DatasetInfo(
        title=f"{name}: {surface}",
        licence="academic research",
        citation="Zou, Zhang, Li, Qi, Wang, Wang: DeepCrack: learning hierarchical convolutional features "
        "for crack detection. "
        "IEEE TIP 28(3), 2019",
        obtain="https://github.com/qinnzou/DeepCrack",
        layout=layout,
        counts=counts,
    )


class _Bundled(Dataset, ABC):
    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=LOSSY_THRESHOLD)


class CrackTree260(_Bundled):
    """Layout: `image/*.jpg` and `gt/*.bmp`.

    Split: none is official; 200 / 20 / 40 (Siriborvornratanakul 2022, who does not name them) are drawn by
    seed.
    """

    info: ClassVar[DatasetInfo] = _info(
        "CrackTree260",
        "260 photographs of pavement, an extension of CrackTree200",
        {"train": 200, "val": 20, "test": 40},
        "image/*.jpg and gt/*.bmp",
    )
    kind: Literal["cracktree260"] = "cracktree260"

    def gather(self, walk: Walk) -> None:
        walk.pair(
            "train", images=walk.files("image", "CrackTree260"), masks=walk.files("gt", "CrackTree260_gt/gt")
        )

    def divide(self, samples: list[Sample]) -> list[Sample]:
        samples = carve(samples, source="train", target="test", share=40 / 260, seed=self.seed)
        return carve(samples, source="train", target="val", share=20 / 220, seed=self.seed)


class CRKWH100(_Bundled):
    """Layout: `CRKWH100/*.png` and `CRKWH100_gt/*.bmp`, or `image` and `gt`. All for testing."""

    info: ClassVar[DatasetInfo] = _info(
        "CRKWH100",
        "100 line-scan images of pavement, visible light",
        {"test": 100},
        "CRKWH100/*.png and CRKWH100_gt/*.bmp, or image/ and gt/",
    )
    kind: Literal["crkwh100"] = "crkwh100"

    def gather(self, walk: Walk) -> None:
        walk.pair(
            "test",
            images=walk.files("CRKWH100/CRKWH100", "CRKWH100", "image"),
            masks=walk.files("CRKWH100_gt/gt", "CRKWH100_gt", "gt"),
        )


class CrackLS315(_Bundled):
    """Layout: `CrackLS315/*.jpg` and `CrackLS315_gt/*.bmp`, or `image` and `gt`. All for testing."""

    info: ClassVar[DatasetInfo] = _info(
        "CrackLS315",
        "315 line-scan images of pavement, laser light",
        {"test": 315},
        "CrackLS315/*.jpg and CrackLS315_gt/*.bmp, or image/ and gt/",
    )
    kind: Literal["crackls315"] = "crackls315"

    def gather(self, walk: Walk) -> None:
        walk.pair(
            "test",
            images=walk.files("CrackLS315/CrackLS315", "CrackLS315", "image"),
            masks=walk.files("CrackLS315_gt/gt", "CrackLS315_gt", "gt"),
        )


class Stone331(_Bundled):
    """Layout: `Stone331/*.jpg`, `Stone331_gt/*.bmp`, and `Stone331_mask/*.bmp`, the stone's surface, which
    are the valid pixels; or `image`, `gt`, `mask`. All for testing.
    """

    info: ClassVar[DatasetInfo] = _info(
        "Stone331",
        "331 photographs of cut stone, with a mask of its surface",
        {"test": 331},
        "Stone331/*.jpg, Stone331_gt/*.bmp and Stone331_mask/*.bmp, or image/, gt/ and mask/",
    )
    kind: Literal["stone331"] = "stone331"

    def gather(self, walk: Walk) -> None:
        walk.pair(
            "test",
            images=walk.files("Stone331/Stone331", "Stone331", "image"),
            masks=walk.files("Stone331_gt/gt", "Stone331_gt", "gt"),
            valid=walk.files("Stone331_mask/mask", "Stone331_mask", "mask"),
        )
