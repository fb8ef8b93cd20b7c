"""DeepCrack: side maps of VGG16's stages, fused (Liu et al., Neurocomputing 2019).

model      VGG16's convolutions and a map of each of five stages -> models.deepcrack_liu
L          of the published code: the focal loss (gamma 2, all pixels alike) of the fusion, and of the side
           maps 0.5, 0.75, 1, 0.75 and 0.5 of it
data       of the published code: images at 256x256, batch 1; half of them flipped, one way or the other
phases     of the published code: SGD 1e-4, momentum 0.9, weight decay 2e-4, 700 epochs; the learning rate
           divided by 10 each 40 epochs, 12,000 steps of the 300 training images
protocols  pixel precision, recall and F1 of all images at once, and IoU

The published code's other loss: `phases.train.loss.kind=weighted_bce`,
`phases.train.loss.crack_weight=33.3`; the paper's: `phases.train.loss.kind=balanced_bce`,
`phases.train.loss.background=1`. After 160 epochs its learning rate is nothing:
`phases.train.schedule.kind=cosine` falls over the whole training.

Deviations and readings, beside those of the network (`models.deepcrack_liu.DeepCrackLiu`):
- the paper has the class-balanced cross-entropy of HED; the published figures that can be repeated are the
  code's, so its loss is taken;
- pixels are normalised by ImageNet's mean and deviation, where the code has 0.5 for both: batch
  normalisation after the first convolution takes out all of the difference but at the border;
- the code's cubic interpolation is by pixel area here, as in every recipe;
- the guided filter is left out (`DeepCrackLiu` says why): the published figures to compare with are those of
  the fused map;
- the code keeps the last epoch; here that of the lowest validation loss, that of the fusion alone, in a
  search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline
from fissura.data.resize import Fixed
from fissura.losses import LinFocal
from fissura.metrics import Overlap, Pixel
from fissura.models import DeepCrackLiu
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import SGD, Decay, Phase, Recipe

PAPER = Paper("Liu et al.", "Neurocomputing", 2019)


def recipe() -> Recipe:
    """The published setting on DeepCrack's 300 training images."""
    return Recipe(
        name="deepcrack_liu",
        data=Pipeline(
            resize=Fixed(height=256, width=256),
            augmentation=Augmentation(horizontal_flip=0.25, vertical_flip=0.25),
            batch_size=1,
            normalisation="imagenet",
        ),
        model=DeepCrackLiu(width=64),
        epochs=700,
        phases=(
            Phase(
                name="train",
                loss=LinFocal(gamma=2.0, alpha=None),
                optimizer=SGD(lr=1e-4, momentum=0.9, weight_decay=2e-4),
                schedule=Decay(factor=0.1, steps=12_000),
            ),
        ),
        inference=Whole(),
        protocols=(Pixel(), Overlap()),
    )
