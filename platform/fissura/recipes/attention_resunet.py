"""Attention residual U-Net trained on patches (König et al., ICIP 2019).

data       section 3.2: 48x48 patches, 60 % of them with at least one crack pixel, 2000 an image (CFD);
           for AigleRN, Eq. 3: `data.crop.allocation=crack_pixels` and `data.crop.per_image=3500`
model      section 2: residual blocks, attention gates, deep supervision; 16 to 128 filters on four levels
phases     section 3.2: cross-entropy + Dice (Eq. 4, 5), SGD 1e-3, momentum 0.9, weight decay 1e-6, batch 32,
           30 epochs (AigleRN: 25)
inference  section 4: a 48x48 window moved by 1 pixel, the mean over all windows that hold a pixel
threshold  section 4: 0.20
protocols  section 3.1: 2 pixels of tolerance

Deviations and readings:
- patches are drawn afresh each epoch, where the paper draws its 142,000 once;
- cross-entropy of two softmax classes is binary cross-entropy of the difference of their maps, and is taken
  as the mean over pixels, where Eq. 5 has the sum: beside a Dice of at most 1 a sum leaves nothing of it;
- Dice is taken over the batch, smoothed by 1, of the crack class alone;
- pixels are scaled to [0, 1], as the paper names no normalisation; it has no augmentation, and so has this;
- the maps that deep supervision brings up, the gates' inner channels and the initialisation are not given:
  see `models/attention_resunet.py`;
- the paper does not say which model is kept: that of the lowest validation loss on whole images, in a search
  its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import CrackPatches, Pipeline
from fissura.data.resize import Native
from fissura.losses import DiceBCE
from fissura.metrics import Pixel, Tolerant
from fissura.models import AttentionResUNet
from fissura.segmentation.inference import Sliding
from fissura.segmentation.recipe import SGD, Given, Phase, Recipe

PAPER = Paper("König et al.", "ICIP", 2019)


def recipe() -> Recipe:
    """The paper's setting on CrackForest."""
    return Recipe(
        name="attention_resunet",
        data=Pipeline(
            resize=Native(),
            crop=CrackPatches(size=48, crack_share=0.6, per_image=2000, allocation="equal"),
            batch_size=32,
            normalisation="unit",
        ),
        model=AttentionResUNet(width=16),
        epochs=30,
        phases=(
            Phase(
                name="train",
                loss=DiceBCE(dice_weight=1.0, bce_weight=1.0),
                optimizer=SGD(lr=1e-3, momentum=0.9, weight_decay=1e-6),
            ),
        ),
        inference=Sliding(size=48, stride=1, weights="mean"),
        threshold=Given(value=0.2),
        protocols=(Tolerant(distance=2), Pixel()),
    )
