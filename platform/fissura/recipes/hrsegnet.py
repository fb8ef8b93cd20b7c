"""HrSegNet: a path of high resolution with semantic guidance (Li et al., Automation in Construction 2023).

model      three guided blocks at a quarter of the image's size -> models.hrsegnet; B16 here, B32 and B48 by
           `model.width`
L          the cross-entropy of the hard pixels, whose label has a probability below 0.7, of the 10,000
           hardest at least: of the crack logits, and half as much of the masks after the first and the second
           block
data       of the published code: 400x400 crops, horizontal flips, and each of brightness, contrast and
           saturation in half of the samples
phases     SGD 0.01, momentum 0.9, weight decay 5e-4, batch 32, 100,000 steps: 450 epochs of CrackSeg9k's
           some 7,100 training images; the learning rate rises over 2000 steps and falls by a polynomial of
           power 0.9
protocols  IoU

Deviations and readings, beside those of the network (`models.hrsegnet.HrSegNet`):
- 0.7 and 10,000 are the defaults of the library that the published code trains with; it divides by the kept
  pixels and 1e-5 of all, `losses.ohem_bce` by the kept ones;
- crops of 400 pixels are padded to 416, a multiple of the network's 32;
- the code scales images by 0.5 to 2 before the crop; here they keep their size;
- the code's brightness, contrast and saturation change by a factor of 0.5 to 1.5; here brightness by as much
  of 255 and saturation by levels, up to the library's usual 30;
- pixels are normalised by ImageNet's mean and deviation, where the code has 0.5 for both;
- the published mean IoU is over crack and background, that of `overlap` is the crack's;
- the kept model is that of the lowest validation loss, that of the crack logits alone, in a search its
  objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import OhemBCE
from fissura.metrics import Overlap, Pixel
from fissura.models import HrSegNet
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import SGD, Phase, Polynomial, Recipe

PAPER = Paper("Li et al.", "Automation in Construction", 2023)


def recipe() -> Recipe:
    """The published setting of B16 on CrackSeg9k."""
    return Recipe(
        name="hrsegnet",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=400, per_image=1),
            augmentation=Augmentation(
                horizontal_flip=0.5,
                saturation=0.5,
                brightness=0.5,
                contrast=0.5,
                brightness_limit=0.5,
                contrast_limit=0.5,
            ),
            batch_size=32,
            normalisation="imagenet",
        ),
        model=HrSegNet(width=16),
        epochs=450,
        phases=(
            Phase(
                name="train",
                loss=OhemBCE(threshold=0.7, least_kept=10_000),
                optimizer=SGD(lr=1e-2, momentum=0.9, weight_decay=5e-4),
                schedule=Polynomial(power=0.9, warm_up=2000),
            ),
        ),
        inference=Whole(),
        protocols=(Overlap(), Pixel()),
    )
