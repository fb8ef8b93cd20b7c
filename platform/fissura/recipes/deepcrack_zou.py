"""DeepCrack: a SegNet whose scales are fused (Zou et al., IEEE Transactions on Image Processing 2019).

model      VGG16's convolutions down and, by the maxima's places, up; five scales -> models.deepcrack_zou
L          the BCE of the five scales' maps and of their fusion, each of weight 1 and without class weights
data       512x512 crops, five an image, of pixels in [0, 1]; the paper's flips and turns
changes    of the published code: colours in half of the samples, by each of four changes half of the time;
           a blur, 5 pixels wide, in one of 13
phases     of the published code: Adam 1e-3, batch 8, 500 epochs
protocols  ODS, OIS and AP with 2 pixels

On two cores `model.width=16`, a sixteenth of the operations.

Deviations and readings, beside those of the network (`models.deepcrack_zou.DeepCrackZou`):
- the paper trains by SGD with a learning rate of 1e-5 for a loss that is summed over pixels, divided by 10
  each 10,000 of 100,000 steps of 2 crops: that rate has no counterpart for a mean, and after 40,000 steps is
  nothing; of 260 images 500 epochs of five crops in batches of 8 are 81,250 steps;
- the paper turns by nine angles, 10 degrees apart; here quarter turns;
- the code's colours change by factors; here saturation by levels, up to the library's usual 30;
- the protocol is that of the papers that compare with it: `flexible:2`;
- neither says which model is kept: that of the lowest validation loss, the BCE of the fusion alone, in a
  search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import BCE
from fissura.metrics import Flexible, Pixel
from fissura.models import DeepCrackZou
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import Adam, Phase, Recipe

PAPER = Paper("Zou et al.", "TIP", 2019)


def recipe() -> Recipe:
    """The published setting on CrackTree260."""
    return Recipe(
        name="deepcrack_zou",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=512, per_image=5),
            augmentation=Augmentation(
                horizontal_flip=0.5,
                vertical_flip=0.5,
                rotate_90=1.0,
                blur=0.08,
                hue=0.25,
                saturation=0.25,
                brightness=0.25,
                contrast=0.25,
                blur_kernel=5,
                hue_shift=18,
                brightness_limit=0.125,
                contrast_limit=0.5,
            ),
            batch_size=8,
            normalisation="unit",
        ),
        model=DeepCrackZou(width=64),
        epochs=500,
        phases=(Phase(name="train", loss=BCE(), optimizer=Adam(lr=1e-3)),),
        inference=Whole(),
        protocols=(Flexible(distance=2), Pixel()),
    )
