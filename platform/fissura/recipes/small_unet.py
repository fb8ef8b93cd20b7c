"""A small plain U-Net (Ronneberger et al., MICCAI 2015): the baseline that a laptop trains in a minute.

It is no crack paper's setting: it is what the others must beat, and what the demo searches.
"""

from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import DiceBCE
from fissura.metrics import Pixel, Tolerant
from fissura.models import UNet
from fissura.segmentation.recipe import Adam, Cosine, Phase, Recipe

PAPER = None


def recipe() -> Recipe:
    """Width 8, three levels, 96x96 crops, Dice + BCE: about two minutes on CrackForest and one CPU core."""
    return Recipe(
        name="small_unet",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=96, per_image=4),
            augmentation=Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=0.5),
            batch_size=8,
            normalisation="unit",
        ),
        model=UNet(width=8, depth=3, normalisation="batch"),
        epochs=24,
        phases=(
            Phase(
                name="train",
                loss=DiceBCE(),
                optimizer=Adam(lr=3e-3),
                schedule=Cosine(),
            ),
        ),
        protocols=(Tolerant(distance=2), Pixel()),
    )
