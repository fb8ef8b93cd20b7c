"""ResEnc-S: a small nnU-Net with residual encoder (Isensee et al., Nature Methods 2021; MICCAI 2024).

network      residual encoder, one convolution a decoder level, deep supervision -> models.resenc
L            cross-entropy + Dice over the batch, smooth 1e-5; of the levels 4/7, 2/7, 1/7 and 0
data         patches of one size, batch 12 of them, 250 steps an epoch; ImageNet's mean and deviation
phases       SGD 0.01, Nesterov's momentum 0.99, weight decay 3e-5, 1000 epochs, rate x (1 - t)^0.9
inference    windows of the patches' size, half overlapping, Gaussian
score        pixel precision, recall and F1 at 0.5; IoU

OpenCrack (2026) and OmniCrack30k (CVPRW 2024) have a plain nnU-Net as their best network; ResEnc-S is the
small form of the encoder that nnU-Net recommends since. nnU-Net's own "M" is `model.width=32` with
`model.blocks=[1, 3, 4, 6, 6, 6, 6]`.

Deviations and readings, beside those of the network (`models.resenc.ResEnc`):
- nnU-Net plans patch and batch from the data and the GPU's memory; here they are 256x256 and 12;
- `data.crop.per_image` 50 gives 250 steps an epoch of 60 training images; set 3000 / images of others;
- a third of nnU-Net's patches is drawn about a labelled pixel; here none is, as nearly every 256x256 patch of
  a cracked image holds some;
- it normalises each image by its own mean and deviation; here all by ImageNet's, pixel by pixel;
- it turns by any angle, scales, lowers resolution and bends grey values; here flips, quarter turns, noise,
  blur, brightness and contrast, with its probabilities;
- it cuts gradients at norm 12, and mirrors at test; here neither;
- its rate falls once an epoch, here with each step;
- it keeps the last epoch; here that of the lowest validation loss, and in a search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import DiceBCE
from fissura.metrics import Overlap, Pixel
from fissura.models import ResEnc
from fissura.segmentation.inference import Sliding
from fissura.segmentation.recipe import Given, Nesterov, Phase, Polynomial, Recipe

PAPER = Paper("Isensee et al.", "nnU-Net revisited, MICCAI", 2024)


def recipe() -> Recipe:
    """nnU-Net's setting for 60 training images."""
    return Recipe(
        name="resenc",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=256, per_image=50),
            augmentation=Augmentation(
                horizontal_flip=0.5,
                vertical_flip=0.5,
                rotate_90=0.2,
                gaussian_noise=0.1,
                blur=0.2,
                brightness=0.15,
                brightness_limit=0.25,
                contrast=0.15,
                contrast_limit=0.25,
            ),
            batch_size=12,
            normalisation="imagenet",
        ),
        model=ResEnc(width=16, blocks=(1, 2, 2, 2, 2)),
        epochs=1000,
        phases=(
            Phase(
                name="train",
                loss=DiceBCE(dice_weight=1.0, bce_weight=1.0, smooth=1e-5, over="batch"),
                optimizer=Nesterov(lr=1e-2, momentum=0.99, weight_decay=3e-5),
                schedule=Polynomial(power=0.9),
            ),
        ),
        inference=Sliding(size=256, stride=128, weights="gaussian"),
        threshold=Given(value=0.5),
        protocols=(Pixel(), Overlap()),
    )
