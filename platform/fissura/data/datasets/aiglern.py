"""AigleRN: 38 grey images of French pavement, taken at traffic speed."""

from pathlib import Path
from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import LOSSY_THRESHOLD, MaskReading, decode_mask
from fissura.data.sample import Sample
from fissura.data.splits import carve
from fissura.data.walk import Walk


class AigleRN(Dataset):
    """Layout: `IMAGES/AIGLE_RN/Im_GT_AIGLE_RN_XXXor.png` and `GROUND_TRUTH/AIGLE_RN/GT_AIGLE_RN_XXX.png`,
    where the crack is the dark shade. Images without ground truth (`Im_noGT_...`) are left out, and so
    are the other sensors' folders.

    Split: none is official; 24 training and 14 test images (König et al., ICIP 2019) are drawn by seed.
    Images of one section of road (C18a, C18b) are one group.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="AigleRN",
        licence="none stated; cite the paper",
        citation="Amhaz, Chambon, Idier, Baltazart: Automatic crack detection on two-dimensional pavement "
        "images: an algorithm "
        "based on minimal path selection. IEEE T-ITS 17(10), 2016",
        obtain="https://www.irit.fr/~Sylvie.Chambon/Crack_Detection_Database.html",
        layout="IMAGES/AIGLE_RN/Im_GT_AIGLE_RN_*or.png and GROUND_TRUTH/AIGLE_RN/GT_AIGLE_RN_*.png",
        counts={"train": 24, "test": 14},
    )
    kind: Literal["aiglern"] = "aiglern"

    def gather(self, walk: Walk) -> None:
        def section(stem: str) -> str:
            return stem.removeprefix("Im_").removeprefix("GT_AIGLE_RN_").removesuffix("or")

        walk.pair(
            "train",
            images=walk.files("IMAGES/AIGLE_RN", "DATASET/IMAGES/AIGLE_RN", key=section),
            masks=walk.files("GROUND_TRUTH/AIGLE_RN", "DATASET/GROUND_TRUTH/AIGLE_RN", key=section),
            group=lambda stem: stem.rstrip("abcdefgh"),
            bare="note",
        )

    def divide(self, samples: list[Sample]) -> list[Sample]:
        return super().divide(carve(samples, source="train", target="test", share=14 / 38, seed=self.seed))

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=LOSSY_THRESHOLD, crack="dark")
