"""DRU: recurrent U-Net for resource-constrained segmentation (Wang et al., ICCV 2019).

network   a U-Net that is run 3 times, its lowest level a gated unit  -> models.dru
L         the cross-entropy of each step, 0.4^k where k steps follow  -> `model.step_weight`
data      DRIVE, squares of 576, flips left and right, turns, batch 4, ImageNet's mean and deviation
phases    SGD 5e-3, momentum 0.9, weight decay 5e-4; 12,000 steps, 0.95 x the learning rate every 180
score     pixel precision, recall and F1 at 0.5, of the last step

The published forms: the default, the single gate (`model.unit=single`, the paper's SRU), and the light one
(`model.width=8`).

Deviations and readings, beside those of the network (`models.dru.DRU`):
- the loss is the mean over pixels, where the published code sums over them and shortens gradients longer
  than 10 to it: equal learning rates do not mean equal steps, so the space searches it up to 0.5;
- 2400 epochs are the 12,000 steps on the 17 to 20 training images of DRIVE;
- the code also turns by any angle, scales and changes colours, in ranges that the paper does not give; here
  turns are quarter ones, and the rest is left out;
- the paper does not say which epoch is kept: here that of the lowest validation loss, the BCE of the last
  step alone, and in a search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import BCE
from fissura.metrics import Pixel
from fissura.models import DRU
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import SGD, Decay, Given, Phase, Recipe

PAPER = Paper("Wang et al.", "ICCV", 2019)


def recipe() -> Recipe:
    """The paper's setting on DRIVE."""
    return Recipe(
        name="dru",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=576, per_image=1),
            augmentation=Augmentation(horizontal_flip=0.5, rotate_90=1.0),
            batch_size=4,
            normalisation="imagenet",
        ),
        model=DRU(width=32, unit="dual", gates="relu", steps=3, step_weight=0.4),
        epochs=2400,
        phases=(
            Phase(
                name="train",
                loss=BCE(),
                optimizer=SGD(lr=5e-3, momentum=0.9, weight_decay=5e-4),
                schedule=Decay(factor=0.95, steps=180),
            ),
        ),
        inference=Whole(),
        threshold=Given(value=0.5),
        protocols=(Pixel(),),
    )
