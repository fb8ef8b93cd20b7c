"""Özgenel-458: the Concrete Crack Segmentation Dataset, 458 large photographs of concrete walls."""

from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.sample import Sample
from fissura.data.splits import carve
from fissura.data.walk import Walk


class Ozgenel458(Dataset):
    """Layout: `rgb/NNN.jpg` and `BW/NNN.jpg`; the masks are JPEG, so they are thresholded.

    Split: none is official. 91 test images are drawn by seed, as many as Isnan et al. (2026) validate on;
    "val" is carved out of the other 367, so that no threshold is chosen on scored images.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Concrete Crack Segmentation Dataset (Özgenel, 458 images)",
        licence="CC BY 4.0",
        citation="Özgenel: Concrete Crack Segmentation Dataset. Mendeley Data, V1, 2019. "
        "doi:10.17632/jwsn7tfbrp.1",
        obtain="https://data.mendeley.com/datasets/jwsn7tfbrp/1",
        layout="rgb/NNN.jpg and BW/NNN.jpg",
        counts={"train": 367, "test": 91},
    )
    kind: Literal["ozgenel458"] = "ozgenel458"

    def gather(self, walk: Walk) -> None:
        walk.pair("train", images=walk.files("rgb"), masks=walk.files("BW"))

    def divide(self, samples: list[Sample]) -> list[Sample]:
        return super().divide(carve(samples, source="train", target="test", share=91 / 458, seed=self.seed))
