"""CIRL: clustering-inspired representation learning (Chen et al., CVPR 2024).

Eq. 1       marginal region M     -> losses.marginal_region
Eq. 3, 7    ambiguity-aware loss  -> losses.AmbiguityAware   (lambda: `phases.ambiguity.loss.lam`)
Eq. 8       ambiguous region A    -> losses.ambiguous_region (gamma: `phases.clustering.loss.gamma`)
Eq. 9-12    psi, exact            -> losses.Clustering       (`phases.clustering.loss.term=exact`)
Eq. 13, 15  psi, its upper bound  -> losses.Clustering       (K: `phases.clustering.loss.k`)
Eq. 16      total                 -> BCE outside A + beta x CI on A (beta: `phases.clustering.loss.beta`)
data        section 4.1: 256x256 crops, horizontal flips, rotations by quarter turns, batch 2
phases      section 4.1: Adam 1e-3, weight decay 5e-4, 2000 epochs, the first 1000 of them Phase I

It trains any segmenter of the project (`model.kind`); the std head is no part of the kept model.

Ablations (Tables 4, 5 and section 3.2): `phases.ambiguity.until=1` is Phase I alone,
`phases.ambiguity.loss.distance=kl` has the Kullback-Leibler divergence in place of the Wasserstein distance,
`phases.clustering.loss.term=nnclr` has NNCLR in place of CI. `phases.ambiguity.loss` and
`phases.clustering.loss` of kind `bce` are the base segmenter on the same budget.

Deviations and readings:
- the paper's own results are on JTFN (`model.kind=jtfn`); the default base here is the plain U-Net, its
  first baseline, with batch normalisation; JTFN's own pixels are ImageNet's (`data.normalisation=imagenet`);
- where a base is trained on other maps beside the crack logits, as JTFN is, its other masks have the BCE,
  in Phase II outside A, and its boundaries the BCE everywhere; std head and features are those of its last
  step, and both losses of CIRL weigh what the base's loss of its crack logits would;
- the ambiguous region is fixed when Phase II begins: one variance map per training image, predicted by the
  network as Phase I left it, kept beside the weights, and cropped and turned with the mask; the region is
  marked on the whole mask, before the crop;
- both losses are means over pixels where the paper has sums, so that they do not depend on the crop;
- the constant term of psi, which has no gradient, is left out of the reported loss;
- Phase II begins with a fresh optimizer; the paper does not say which model is kept: that of Phase II's
  lowest validation loss, which is the BCE, as validation images have no ambiguous region, and in a search
  that of its objective.
"""

from fissura.core.paper import Paper
from fissura.data.pipeline import Augmentation, Pipeline, RandomCrop
from fissura.data.resize import Native
from fissura.losses import AmbiguityAware, Clustering
from fissura.metrics import Pixel
from fissura.models import UNet
from fissura.segmentation.inference import Whole
from fissura.segmentation.recipe import Adam, Phase, Recipe

PAPER = Paper("Chen et al.", "CVPR", 2024)


def recipe() -> Recipe:
    """The paper's setting on the plain U-Net."""
    return Recipe(
        name="cirl",
        data=Pipeline(
            resize=Native(),
            crop=RandomCrop(size=256, per_image=1),
            augmentation=Augmentation(horizontal_flip=0.5, rotate_90=1.0),
            batch_size=2,
            normalisation="unit",
        ),
        model=UNet(width=64, depth=4, normalisation="batch"),
        epochs=2000,
        phases=(
            Phase(
                name="ambiguity",
                loss=AmbiguityAware(lam=0.3, distance="wasserstein"),
                optimizer=Adam(lr=1e-3, weight_decay=5e-4),
                until=0.5,
            ),
            Phase(
                name="clustering",
                loss=Clustering(gamma=0.4, k=20, beta=0.2, term="bound"),
                optimizer=Adam(lr=1e-3, weight_decay=5e-4),
            ),
        ),
        inference=Whole(),
        protocols=(Pixel(),),
    )
