"""Niblack's threshold (Niblack, *An introduction to digital image processing*, Prentice-Hall 1986): a floor
that needs no training, for cracks darker than what is around them.

k           the threshold of the map, from validation images: its logit (`models.local_threshold.Niblack`)
background  the grey image is divided by its mean under a Gaussian of deviation 20
area        groups of crack pixels that touch are dropped below 300 pixels (`smallest_crack`)

Deviations and readings:
- the book has no step before it: the light is evened, the image smoothed, and small groups are dropped, as
  without these steps the aggregate of a road answers as much as its cracks;
- the settings are those that were best on 40 other images of CrackForest; on other cracks, search them
  (`fissura search niblack`).
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Native
from fissura.metrics import Pixel, Tolerant
from fissura.models import Niblack
from fissura.segmentation.recipe import Recipe

PAPER = Paper("Niblack", "Prentice-Hall", 1986)


def recipe() -> Recipe:
    """The setting for CrackForest; nothing is trained."""
    return Recipe(
        name="niblack",
        # one image at a time: a batch pads images of unequal size, and a filter sees that
        data=Pipeline(resize=Native(), batch_size=1, normalisation="unit"),
        model=Niblack(background=20.0, blur=1.0, window=41),
        epochs=0,
        phases=(),
        smallest_crack=300,
        protocols=(Pixel(), Tolerant(distance=2)),
    )
