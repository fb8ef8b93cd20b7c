"""DRIVE: retina vessels, 40 photographs 565x584; thin branching curves like cracks, scored inside a field of
view.
"""

from typing import ClassVar, Literal

from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.sample import Split
from fissura.data.walk import Walk


class Drive(Dataset):
    """Layout: the publisher's `{training,test}/{images,1st_manual,mask}`, or
    `{images,masks,fov}/{training,testing}`; files begin with the photograph's two digits
    (`21_training.tif`, `21_manual1.gif`, `21_training_mask.gif`).

    The mask is the first observer's; the second observer's (`2nd_manual`, `masks_2nd`) is not read. The valid
    pixels are the field of view. Split: official, 20 / 20.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="DRIVE: Digital Retinal Images for Vessel Extraction",
        licence="research and education only; no redistribution",
        citation="Staal, Abramoff, Niemeijer, Viergever, van Ginneken: Ridge-based vessel segmentation in "
        "color images of "
        "the retina. IEEE TMI 23(4), 2004",
        obtain="https://drive.grand-challenge.org",
        layout="{training,test}/{images,1st_manual,mask}, or {images,masks,fov}/{training,testing}",
        counts={"train": 20, "test": 20},
    )
    kind: Literal["drive"] = "drive"

    def gather(self, walk: Walk) -> None:
        def number(stem: str) -> str:
            return stem.split("_")[0]

        folders: tuple[tuple[Split, str, str], ...] = (
            ("train", "training", "training"),
            ("test", "test", "testing"),
        )
        for split, published, copied in folders:
            walk.pair(
                split,
                images=walk.files(f"{published}/images", f"images/{copied}", key=number),
                masks=walk.files(f"{published}/1st_manual", f"masks/{copied}", key=number),
                valid=walk.files(f"{published}/mask", f"fov/{copied}", key=number),
            )
