"""CFD, the CrackForest data set: 118 photographs of urban road, 480x320."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fissura.core.errors import DataError
from fissura.data.dataset import Dataset, DatasetInfo
from fissura.data.masks import MaskReading
from fissura.data.sample import Sample
from fissura.data.splits import carve
from fissura.data.walk import Walk

CRACK, BACKGROUND = 2, 1
WRONG_MASKS = frozenset({"042"})
_MAX_BYTES = 1 << 20


class CFD(Dataset):
    """Layout: `image/NNN.jpg` and `groundTruth/NNN.mat`, where `groundTruth.Segmentation` labels the
    pixels: 1 background, 2 crack.

    Other labels (3, 4: patches enclosed by cracks, in 22 files) are background. The mask of 042 is left out:
    it is the mask of 065, pixel for pixel, and lies on no crack of 042, which leaves the 117 of the
    literature. Split: none is official; 71 training and 46 test images (König et al., ICIP 2019, who do not
    name them) are drawn by seed.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="CrackForest (CFD)",
        licence="non-commercial research only",
        citation="Shi, Cui, Qi, Meng, Chen: Automatic road crack detection using random structured forests. "
        "IEEE T-ITS 17(12), 2016",
        obtain="https://github.com/cuilimeng/CrackForest-dataset",
        layout="image/NNN.jpg and groundTruth/NNN.mat",
        counts={"train": 71, "test": 46},
    )
    kind: Literal["cfd"] = "cfd"

    def gather(self, walk: Walk) -> None:
        masks = walk.files("groundTruth", suffixes=frozenset({".mat"}))
        images = walk.files("image")
        for stem in sorted(WRONG_MASKS & masks.keys() & images.keys()):
            walk.notes.append(f"{masks.pop(stem)}: left out: it is the mask of another image (065)")
            del images[stem]
        walk.pair("train", images=images, masks=masks, bare="note")

    def divide(self, samples: list[Sample]) -> list[Sample]:
        return super().divide(carve(samples, source="train", target="test", share=46 / 117, seed=self.seed))

    def decode_mask(self, path: Path) -> MaskReading:
        labels = _segmentation(path)
        counts = np.bincount(labels.ravel(), minlength=256)
        levels = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
        others = {label: count for label, count in levels.items() if label not in {CRACK, BACKGROUND}}
        remark = None
        if others:
            shown = ", ".join(f"{label} ({count} pixels)" for label, count in others.items())
            remark = f"unexpected labels {shown}, taken as background"
        mask = (labels == CRACK).astype(np.uint8)
        return MaskReading(mask, levels, sum(others.values()) / labels.size, remark)


def _segmentation(path: Path) -> np.ndarray:
    from scipy.io import loadmat

    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(
                f"{path}: a CFD mask has at most {_MAX_BYTES} bytes: this one has {size}; fetch it again"
            )
        labels = loadmat(path, variable_names=["groundTruth"])["groundTruth"][0, 0]["Segmentation"]
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # SciPy raises almost anything on a broken file.
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(
            f"{path}: a CFD mask is a MATLAB file with groundTruth.Segmentation: this one is not "
            f"({reason}); fetch it again"
        ) from None
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        held = f"{getattr(labels, 'dtype', type(labels).__name__)}, shape {getattr(labels, 'shape', None)}"
        raise DataError(
            f"{path}: Segmentation is a matrix of 8-bit labels: this one is {held}; fetch it again"
        )
    return labels
