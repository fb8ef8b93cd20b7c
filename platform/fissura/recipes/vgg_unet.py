"""VGG-UNet: a U-Net that is trained to look right to VGG19 (Mosinska et al., CVPR 2018).

L            BCE + mu L_top, mu 0.1                -> the terms `bce` and `topology` of the loss
L_top        VGG19's maps of labels and prediction -> losses.vgg
data         256x256 crops, flips both ways, quarter turns, batch 2, ImageNet's mean and deviation
phases       Adam 1e-3, weight decay 5e-4; 1000 epochs and 0.9 x the learning rate every 500 steps
score        pixel precision, recall and F1 at 0.5

It is not a U-Net on a VGG encoder: that is `model.kind=backbone_unet`. Data, phases and score are those of
the comparison in which crack papers quote it (Cheng et al., ICCV 2021, on DRIVE).

VGG19's ImageNet weights are needed. Without a network set
`phases.train.loss.terms.topology.loss.weights` to the path of a copy of them; `none` takes random ones, which
makes another loss.

Deviations and readings, beside those of the loss:
- the network is the plain U-Net with padding and batch normalisation;
- the prediction is not refined by further passes over it (the paper's K is 1): the comparison does not say.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import BCE, VGG, Term, WeightedSum
from fissura.metrics import Pixel
from fissura.models import UNet
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import Adam, Decay, Given, Phase, Recipe

PAPER = Paper("Mosinska et al.", "CVPR", 2018)


def recipe() -> Recipe:
    """The comparison's setting on DRIVE."""
    return Recipe(
        name="vgg_unet",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=256, per_image=1),
            augmentation=Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=1.0),
            batch_size=2,
            normalisation="imagenet",
        ),
        model=UNet(width=64),
        epochs=1000,
        phases=(
            Phase(
                name="train",
                loss=WeightedSum(
                    terms=(Term(name="bce", loss=BCE()), Term(name="topology", weight=0.1, loss=VGG()))
                ),
                optimizer=Adam(lr=1e-3, weight_decay=5e-4),
                schedule=Decay(factor=0.9, steps=500),
            ),
        ),
        inference=Whole(),
        threshold=Given(value=0.5),
        protocols=(Pixel(),),
    )
