"""Sato's line filter (Sato et al., *Three-dimensional multi-scale line filter*, Medical Image Analysis 1998):
a floor that needs no training, for cracks that are dark lines.

response    the larger eigenvalue of the Hessian, where it is above 0 (`models.ridges.Sato`)
background  the grey image is divided by its mean under a Gaussian of deviation 20
area        groups of crack pixels that touch are dropped below 100 pixels (`smallest_crack`)

Deviations and readings:
- the paper is of volumes and takes several scales: fine ones answer to the aggregate of a road, so one scale,
  near half a crack's width, is the default; `model.scales` adds others;
- the settings are those that were best on 40 other images of CrackForest; on other cracks, search them
  (`fissura search sato`).
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Native
from fissura.metrics import Pixel, Tolerant
from fissura.models import Sato
from fissura.segmentation.recipe import Recipe

PAPER = Paper("Sato et al.", "Medical Image Analysis", 1998)


def recipe() -> Recipe:
    """The setting for CrackForest; nothing is trained."""
    return Recipe(
        name="sato",
        # one image at a time: a batch pads images of unequal size, and a filter sees that
        data=Pipeline(resize=Native(), batch_size=1, normalisation="unit"),
        model=Sato(background=20.0, sigma=3.0, scales=1),
        epochs=0,
        phases=(),
        smallest_crack=100,
        protocols=(Pixel(), Tolerant(distance=2)),
    )
