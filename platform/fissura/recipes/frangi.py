"""Frangi's vesselness (Frangi et al., *Multiscale vessel enhancement filtering*, MICCAI 1998): a floor that
needs no training, for cracks that are dark lines.

response    Eq. 15 in the plane, beta 0.5, c half the largest norm of the Hessian (`models.ridges.Frangi`)
background  the grey image is divided by its mean under a Gaussian of deviation 20
area        groups of crack pixels that touch are dropped below 200 pixels (`smallest_crack`)

Deviations and readings:
- the paper takes the largest response over several scales: fine ones answer to the aggregate of a road, so
  one scale, near half a crack's width, is the default; `model.scales` adds others;
- the settings are those that were best on 40 other images of CrackForest; on other cracks, search them
  (`fissura search frangi`).
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Pipeline
from fissura.data.resize import Native
from fissura.metrics import Pixel, Tolerant
from fissura.models import Frangi
from fissura.segmentation.recipe import Recipe

PAPER = Paper("Frangi et al.", "MICCAI", 1998)


def recipe() -> Recipe:
    """The setting for CrackForest; nothing is trained."""
    return Recipe(
        name="frangi",
        # one image at a time: a batch pads images of unequal size, and a filter sees that
        data=Pipeline(resize=Native(), batch_size=1, normalisation="unit"),
        model=Frangi(background=20.0, sigma=3.0, scales=1, beta=0.5, gamma=0.5),
        epochs=0,
        phases=(),
        smallest_crack=200,
        protocols=(Pixel(), Tolerant(distance=2)),
    )
