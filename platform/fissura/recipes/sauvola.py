"""Sauvola's threshold (Sauvola and Pietikäinen, *Adaptive document image binarization*, Pattern Recognition
2000): a floor that needs no training, for cracks darker than what is around them.

c           an offset, 0 in the paper, from validation images (`models.local_threshold.Sauvola`)
background  the grey image is divided by its mean under a Gaussian of deviation 20
area        groups of crack pixels that touch are dropped below 300 pixels (`smallest_crack`)

Deviations and readings:
- the paper binarises text, k 0.5: the light is evened, the image smoothed by a Gaussian of deviation 1, as
  for Niblack's threshold, and small groups are dropped;
- the settings are those that were best on 40 other images of CrackForest; on other cracks, search them
  (`fissura search sauvola`).
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Native
from fissura.metrics import Pixel, Tolerant
from fissura.models import Sauvola
from fissura.segmentation.recipe import Recipe

PAPER = Paper("Sauvola and Pietikäinen", "Pattern Recognition", 2000)


def recipe() -> Recipe:
    """The setting for CrackForest; nothing is trained."""
    return Recipe(
        name="sauvola",
        # one image at a time: a batch pads images of unequal size, and a filter sees that
        data=Pipeline(resize=Native(), batch_size=1, normalisation="unit"),
        model=Sauvola(background=20.0, blur=1.0, window=61, k=0.3),
        epochs=0,
        phases=(),
        smallest_crack=300,
        protocols=(Pixel(), Tolerant(distance=2)),
    )
