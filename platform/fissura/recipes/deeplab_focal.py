"""DeepLabV3 with normalised focal losses (Siriborvornratanakul, Advances in Multimedia 2022).

data       sections 3.2, 3.3: 512x512, images by pixel area and masks by nearest neighbour, no pixel
           normalisation; flips both ways, blur, hue, saturation, brightness, contrast, crop
model      section 3.1: torchvision's DeepLabV3-ResNet101 with `DeepLabHead(2048, 1)`, all layers trained
phases     Eq. 2: focal, alpha 3, gamma 2 (the paper's choice; also 1, 4 and BCE); SGD 1e-4, momentum 0.9,
           weight decay 5e-4, batch 2, 300 epochs, learning rate x 0.1 after 10 flat epochs
map_range  section 3.3: each map stretched to 0..1 before it is binarised, under this protocol alone: a model
           in use gives its probabilities, with a threshold that was chosen for them
protocols  section 3.3: ODS, OIS, AP with d = 2

The paper's other settings: `model.outputs=2`, `data.normalisation=imagenet`, `model.trained=head`,
`model.weights=PATH` (COCO's), `phases.train.loss.kind=bce`.

Deviations and readings:
- the probability of each change is not given: 0.5 for each, the libraries' usual strength;
- the size of the random crop is not given: 448 of the 512 pixels;
- the gradient of Eq. 2 is taken as it stands, through the weights and their sum
  (`phases.train.loss.normaliser`);
- COCO's weights are published as a pickle, which is never loaded here: give them converted to safetensors;
- the paper does not say which model is kept: that of the lowest validation loss, in a search its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Fixed
from fissura.losses import Focal
from fissura.metrics import Flexible, Pixel
from fissura.models import DeepLabV3
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import SGD, Phase, Plateau, Recipe

PAPER = Paper("Siriborvornratanakul", "Advances in Multimedia", 2022)


def recipe() -> Recipe:
    """The paper's best setting: gamma 2, from random weights."""
    return Recipe(
        name="deeplab_focal",
        data=Pipeline(
            resize=Fixed(height=512, width=512),
            crop=RandomCrop(size=448, per_image=1),
            augmentation=Augmentation(
                horizontal_flip=0.5,
                vertical_flip=0.5,
                blur=0.5,
                hue=0.5,
                saturation=0.5,
                brightness=0.5,
                contrast=0.5,
            ),
            batch_size=2,
            normalisation="unit",
        ),
        model=DeepLabV3(backbone="resnet101", outputs=1, trained="all", weights="none"),
        epochs=300,
        phases=(
            Phase(
                name="train",
                loss=Focal(alpha=3.0, gamma=2.0),
                optimizer=SGD(lr=1e-4, momentum=0.9, weight_decay=5e-4),
                schedule=Plateau(factor=0.1, patience=10),
            ),
        ),
        inference=Whole(),
        map_range="min_max",
        protocols=(Flexible(distance=2), Pixel()),
    )
