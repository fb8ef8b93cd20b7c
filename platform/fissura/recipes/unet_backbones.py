"""U-Net with pretrained backbones (Isnan et al., CMBN 2026:20).

Section 2.2   512x512, flips p = 0.5 / 0.2, brightness-contrast p = 0.3, noise p = 0.2, ImageNet mean and deviation -> data
Section 2.3.1 four encoder and four decoder blocks, transposed convolution; nine backbones                         -> model
Section 2.3.3 Dice + BCE, Adam 1e-3, 30 epochs, batch 4, plateau x 0.5 after 3 epochs, AMP, lowest validation loss -> phases
Section 2.3.4 Dice and IoU                                                                                         -> protocols

Readings, where the paper is silent:
- the patience of early stopping is not given: 10 epochs, more than two steps of the plateau schedule;
- each decoder block normalises its convolutions by batch, and the fourth (full size) has no skip;
- Dice and BCE weigh the same; Dice is taken over the batch, with a smoothing of 1;
- the paper scores at 512x512; here the maps are brought back and scored against the masks at their own size, and the test
  images are never those that chose the epoch (the paper reports its validation images).
"""

from fissura.data.pipeline import Augmentation, Pipeline, WholeImage
from fissura.data.resize import Fixed
from fissura.engine.recipe import Adam, Phase, Plateau, Recipe
from fissura.losses import DiceBCE
from fissura.metrics import Overlap, Pixel
from fissura.models import BackboneUNet


def recipe() -> Recipe:
    """The paper's best setting: the Xception backbone."""
    return Recipe(
        name="unet_backbones",
        data=Pipeline(
            resize=Fixed(height=512, width=512),
            crop=WholeImage(),
            augmentation=Augmentation(
                horizontal_flip=0.5, vertical_flip=0.2, brightness_contrast=0.3, gaussian_noise=0.2
            ),
            batch_size=4,
            normalisation="imagenet",
        ),
        model=BackboneUNet(encoder="xception", weights="imagenet"),
        phases=(
            Phase(
                name="train",
                loss=DiceBCE(dice_weight=1.0, bce_weight=1.0),
                optimizer=Adam(lr=1e-3),
                schedule=Plateau(factor=0.5, patience=3),
                epochs=30,
                early_stopping=10,
            ),
        ),
        precision="mixed",
        protocols=(Overlap(), Pixel()),
    )
