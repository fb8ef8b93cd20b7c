"""U-Net with pretrained backbones (Isnan et al., CMBN 2026:20).

data       section 2.2: 512x512; flips p = 0.5 and 0.2, brightness-contrast p = 0.3, Gaussian noise p = 0.2;
           ImageNet's mean and deviation
model      sections 2.3.1, 2.3.2: four encoder and four decoder blocks, transposed convolution, nine backbones
phases     section 2.3.3: Dice + BCE, Adam 1e-3, 30 epochs, batch 4, learning rate halved after 3 flat epochs,
           early stopping, mixed precision; the model of the lowest validation loss is kept
protocols  section 2.3.4: Dice and IoU

Deviations and readings:
- the strengths of the changes are not given: the library's of then, so noise of at most 7 grey levels;
- the patience of early stopping is not given: 10 epochs, more than two steps of the schedule;
- each decoder block normalises by batch, and the fourth (full size) has no skip, as no encoder has features
  of the full size;
- Dice and BCE weigh the same; Dice is taken over the batch, smoothed by 1;
- the paper scores at 512x512; here the maps are brought back and scored against the masks at their own size;
- the paper reports the images that chose the epoch; here the test images chose nothing.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, WholeImage
from fissura.data.resize import Fixed
from fissura.losses import DiceBCE
from fissura.metrics import Overlap, Pixel
from fissura.models import BackboneUNet
from fissura.segmentation.recipe import Adam, Phase, Plateau, Recipe

PAPER = Paper("Isnan et al.", "CMBN", 2026)


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
        epochs=30,
        phases=(
            Phase(
                name="train",
                loss=DiceBCE(dice_weight=1.0, bce_weight=1.0),
                optimizer=Adam(lr=1e-3),
                schedule=Plateau(factor=0.5, patience=3),
                early_stopping=10,
            ),
        ),
        precision="mixed",
        protocols=(Overlap(), Pixel()),
        kept_by="val/loss",
    )
