"""SegFormer B0 to B2 with its own head (Xie et al., NeurIPS 2021).

network      MiT encoder with ImageNet weights, head of 1x1 convolutions at stride 4 -> models.segformer
L            cross-entropy
data         512x512 crops, horizontal flips, changes of colour, batch 16, ImageNet's mean and deviation
phases       AdamW 6e-5, the head's 10 times that, weight decay 0.01; 160,000 steps, 1500 of warm-up, then
             in a line to 0
score        pixel precision, recall and F1 at 0.5; IoU

This is the setting of the paper on ADE20K, by its text and published code. The forms: `b0`, the default,
`model.size=b1`, and `model.size=b2` with `model.width=768`.

Deviations and readings:
- `data.crop.per_image` 16 and 2500 epochs give 160,000 steps of 64 training images; set the product of
  images, `per_image` and `epochs` to 2.56 million for others;
- the published code scales images by 0.5 to 2 before the crop; here they keep their size;
- it multiplies saturation by 0.5 to 1.5; here up to 30 levels of 255 are added or taken away;
- its scales and shifts alone have no weight decay; here biases have none either;
- two classes under a softmax are one map under a sigmoid, which is the same set of functions;
- it keeps the last step; here the epoch of the lowest validation loss, and in a search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import BCE
from fissura.metrics import Overlap, Pixel
from fissura.models import SegFormer
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import AdamW, Given, Phase, Polynomial, Recipe

PAPER = Paper("Xie et al.", "NeurIPS", 2021)


def recipe() -> Recipe:
    """The paper's setting on ADE20K."""
    return Recipe(
        name="segformer",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=512, per_image=16),
            augmentation=Augmentation(
                horizontal_flip=0.5,
                hue=0.5,
                hue_shift=18,
                saturation=0.5,
                brightness=0.5,
                brightness_limit=0.125,
                contrast=0.5,
                contrast_limit=0.5,
            ),
            batch_size=16,
            normalisation="imagenet",
        ),
        model=SegFormer(size="b0", width=256, weights="imagenet"),
        epochs=2500,
        phases=(
            Phase(
                name="train",
                loss=BCE(),
                optimizer=AdamW(lr=6e-5, weight_decay=0.01, new_factor=10),
                schedule=Polynomial(power=1.0, warm_up=1500),
            ),
        ),
        inference=Whole(),
        threshold=Given(value=0.5),
        protocols=(Pixel(), Overlap()),
    )
