"""CRACK500: 500 phone photographs of pavement, cut into 3,368 crops of 640x360."""

from pathlib import Path
from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import LOSSY_THRESHOLD, MaskReading, decode_mask
from fissura.data.sample import SPLITS
from fissura.data.walk import Walk


class Crack500(Dataset):
    """Layout: `traincrop`, `valcrop`, `testcrop` as the publisher's archives unpack (possibly nested, as
    `traincrop/traincrop`), each with `DATE_TIME_X_Y.jpg` and its mask `DATE_TIME_X_Y.png` side by side; or
    `{train,val,test}/{images,masks}`.

    Split: official, 1896 / 348 / 1124. Crops of one photograph (`DATE_TIME`) are one group.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="CRACK500",
        licence="none stated; cite the papers",
        citation="Zhang, Yang, Zhang, Zhu: Road crack detection using deep convolutional neural network. "
        "ICIP 2016; Yang et "
        "al.: Feature pyramid and hierarchical boosting network for pavement crack detection. IEEE T-ITS "
        "21(4), 2020",
        obtain="https://github.com/fyangneil/pavement-crack-detection",
        layout="{train,val,test}crop/*.jpg with *.png beside them, or {train,val,test}/{images,masks}",
        counts={"train": 1896, "val": 348, "test": 1124},
    )
    kind: Literal["crack500"] = "crack500"

    def gather(self, walk: Walk) -> None:
        for split in SPLITS:
            crops = (f"{split}crop/{split}crop", f"{split}crop")
            jpeg, png = frozenset({".jpg"}), frozenset({".png"})
            walk.pair(
                split,
                images=walk.files(*crops, f"{split}/images", suffixes=jpeg, others="ignore"),
                masks=walk.files(*crops, f"{split}/masks", suffixes=png, others="ignore"),
                group=lambda stem: "_".join(stem.split("_")[:2]),
            )

    def decode_mask(self, path: Path) -> MaskReading:
        return decode_mask(path, threshold=LOSSY_THRESHOLD)
