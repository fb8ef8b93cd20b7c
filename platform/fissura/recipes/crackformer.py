"""CrackFormer-II: self-attention of linear cost for cracks (Liu et al., TITS 2023).

network   encoder and decoder of attention blocks, five gated side maps, fused  -> models.crackformer
L         class-balanced cross-entropy of the five side maps and the fused one  -> losses.BalancedBCE
phases    SGD 1e-3, momentum 0.9, batch 1
score     the best threshold of the whole set, pixel by pixel, without tolerance

Deviations and readings, beside those of the network (`models.crackformer.CrackFormer`):
- the training was never published: learning rate, momentum and batch are those of others who compare with
  it; 500 epochs, crops of 256x256 and no weight decay are this project's choice;
- the paper flips, turns and changes the gamma, in ranges that it does not give; here flips and quarter turns;
- the weights of the six losses are not published: 1 each;
- the loss passes over pixels on which several annotators disagree: a mask of two levels has none;
- the published code's loader and its test differ in how they scale pixels; here they are from 0 to 1, RGB;
- the threshold is chosen on validation images, the paper's on the test images; the kept epoch is that of the
  lowest validation loss, of the fused map alone, and in a search that of its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import BalancedBCE
from fissura.metrics import Pixel
from fissura.models import CrackFormer
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import SGD, Chosen, Phase, Recipe

PAPER = Paper("Liu et al.", "TITS", 2023)


def recipe() -> Recipe:
    """What is known of the paper's setting."""
    return Recipe(
        name="crackformer",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=256, per_image=1),
            augmentation=Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rotate_90=1.0),
            batch_size=1,
            normalisation="unit",
        ),
        model=CrackFormer(width=64, dropout=0.3),
        epochs=500,
        phases=(
            Phase(
                name="train",
                loss=BalancedBCE(background=1.1),
                optimizer=SGD(lr=1e-3, momentum=0.9, weight_decay=0.0),
            ),
        ),
        inference=Whole(),
        threshold=Chosen(),
        protocols=(Pixel(),),
    )
