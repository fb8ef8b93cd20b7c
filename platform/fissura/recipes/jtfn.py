"""JTFN: joint topology-preserving feature-refinement network (Cheng et al., ICCV 2021).

GAU, FIM     gated attention, feature interaction -> models.jtfn
feedback     T steps over one encoder             -> `model.steps`
L            of each step, the mean BCE over its four masks, plus that over its four boundaries
boundary     3x3 maximum of the mask - mask       -> losses.boundary_region
data         256x256 crops, flips both ways, quarter turns, batch 2, ImageNet's mean and deviation
phases       Adam 1e-3, weight decay 5e-4; on DRIVE 1000 epochs and 0.9 x the learning rate every 500 steps
score        pixel precision, recall and F1 at 0.5

The published forms: `base64`, the default, and `resbase32`: `model.width=32`, `model.blocks=residual`,
`model.steps=2`. On Crack500 and on roads: `model.steps=2`, `epochs=2000`,
`phases.train.schedule.factor=0.95`, `phases.train.schedule.steps=10000`; `data.crop.size=360` on Crack500.

Deviations and readings, beside those of the network (`models.jtfn.JTFN`):
- the paper's equation has the last maps of a step alone, the published code those of all four levels;
- the published code also turns by any angle and jitters colours; the paper says flips and quarter turns only;
- the paper makes its boundary by Canny and a gradient, the published code by the maximum;
- the code keeps the epoch that is best on the test images; here that of the lowest validation loss, the BCE
  of the crack logits alone, and in a search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import BCE
from fissura.metrics import Pixel
from fissura.models import JTFN
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import Adam, Decay, Given, Phase, Recipe

PAPER = Paper("Cheng et al.", "ICCV", 2021)


def recipe() -> Recipe:
    """The paper's setting on DRIVE."""
    return Recipe(
        name="jtfn",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=256, per_image=1),
            augmentation=Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=1.0),
            batch_size=2,
            normalisation="imagenet",
        ),
        model=JTFN(width=64, blocks="plain", steps=3),
        epochs=1000,
        phases=(
            Phase(
                name="train",
                loss=BCE(),
                optimizer=Adam(lr=1e-3, weight_decay=5e-4),
                schedule=Decay(factor=0.9, steps=500),
            ),
        ),
        inference=Whole(),
        threshold=Given(value=0.5),
        protocols=(Pixel(),),
    )
