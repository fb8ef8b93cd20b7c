"""The clustering-inspired loss (Chen et al., CVPR 2024): ambiguous pixels learn from their neighbours."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn

from fissura.core.paper import Paper
from fissura.losses.ambiguity import VARIANCE
from fissura.losses.bce import BCE
from fissura.losses.cluster_terms import centred_bound, centred_exact, nearest_neighbour_contrast
from fissura.losses.loss import BatchMaps, Criterion, ImageMaps, LossSpec, full_precision
from fissura.losses.neighbours import nearest_neighbours
from fissura.losses.regions import ambiguous_region

AMBIGUOUS = "ambiguous"


class Clustering(LossSpec):
    """Cross-entropy outside the ambiguous region, plus `beta` x a clustering term over it.

    `term` is the paper's upper bound on its clustering-inspired loss (`bound`), that loss itself (`exact`),
    or the contrast with the nearest neighbour, an ablation of the paper (`nnclr`). `bound` and `exact` take
    `k` neighbours, `nnclr` one; only `nnclr` reads `temperature`. `gamma` is the variance above which a
    marginal pixel is ambiguous: the region is computed with it when the phase begins.
    """

    paper: ClassVar[Paper | None] = Paper("Chen et al.", "CIRL, CVPR", 2024)
    kind: Literal["clustering"] = "clustering"
    gamma: float = Field(0.4, gt=0, le=1e6)
    k: int = Field(20, ge=1, le=4096)
    beta: float = Field(0.2, ge=0, le=1e6)
    term: Literal["bound", "exact", "nnclr"] = "bound"
    temperature: float = Field(0.1, ge=1e-6, le=1e6)

    def build(self) -> "ClusteringLoss":
        """The loss as a module."""
        return ClusteringLoss(self)

    def criterion(self, feature_channels: int) -> "ClusteringCriterion":
        """The loss with the features that it reads."""
        return ClusteringCriterion(self.build())

    @property
    def needs(self) -> dict[str, str]:
        """The variance maps of Phase I."""
        return {VARIANCE: "ambiguity_aware"}

    def maps(self, left: Mapping[str, ImageMaps], masks: ImageMaps) -> dict[str, ImageMaps]:
        """The ambiguous region (Eq. 8) of each image, 1 inside, from its whole variance map and mask."""
        regions = {}
        for index, share in left[VARIANCE].items():
            log_variance = torch.logit(torch.from_numpy(share.astype(np.float32)))[None, None]
            target = torch.from_numpy(np.array(masks[index]))[None, None]
            regions[index] = ambiguous_region(log_variance, target, gamma=self.gamma)[0, 0].numpy()
        return {AMBIGUOUS: regions}


class ClusteringCriterion(Criterion):
    """Phase II of CIRL: the features of ambiguous pixels say which of them belong together."""

    reads = 1
    loss: "ClusteringLoss"

    def readings(self, features: Float[Tensor, "b c h w"]) -> tuple[Tensor, ...]:
        """The features."""
        return (features,)

    def forward(
        self,
        outputs: tuple[Tensor, ...],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """See `Criterion.forward`; without a map, as in validation, no pixel is ambiguous."""
        loss: Tensor = self.loss(*outputs, target, valid, _ambiguous(maps, target))
        return loss

    def side_loss(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        maps: BatchMaps,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy outside the ambiguous region: the features are those of the crack logits."""
        supervised = torch.where(_ambiguous(maps, target) > 0, 0.0, valid)
        loss: Tensor = self.loss.bce(logits, target, supervised)
        return loss


def _ambiguous(maps: BatchMaps, target: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    return maps[AMBIGUOUS] if AMBIGUOUS in maps else torch.zeros_like(target)


class ClusteringLoss(nn.Module):
    """`L = L_BCE + beta L_CI` (Eq. 16).

    L_BCE  binary cross-entropy, the mean over the batch's valid pixels outside A
    L_CI   the term over S_I, the mean over the images whose S_I is not empty; 0 where there are none
    S_I    the pixels of image I that are both ambiguous and valid        A  the ambiguous region

    The terms are the centred forms in `cluster_terms`, without the paper's constant. Neighbours are chosen
    without a gradient. `bound` and `exact` reach the features through the logits alone.
    """

    def __init__(self, spec: Clustering) -> None:
        super().__init__()
        self.spec = spec
        self.bce = BCE().build()

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        features: Float[Tensor, "b c h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
        ambiguous: Num[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch; `target` (1 = crack), `valid` and `ambiguous` hold only 0 and 1. Pixels with
        `valid` = 0 count for nothing; their gradients are exactly zero."""
        doubtful = (ambiguous > 0) & (valid > 0)
        supervised: Tensor = self.bce(logits, target, torch.where(ambiguous > 0, 0.0, valid))
        z, terms = full_precision(logits, valid), []
        for logit, feature, chosen in zip(z, features, doubtful, strict=True):
            index = chosen.flatten().nonzero().squeeze(1)
            if len(index) > 0:
                terms.append(self._term(logit.flatten()[index], feature.flatten(1)[:, index].T))
        if not terms or self.spec.beta == 0:
            return supervised
        return supervised + self.spec.beta * torch.stack(terms).mean()

    def _term(self, logits: Float[Tensor, " s"], features: Float[Tensor, "s c"]) -> Float[Tensor, ""]:
        features = features.to(logits.dtype)
        if self.spec.term == "nnclr":
            nearest = nearest_neighbours(features.detach(), k=1)
            return nearest_neighbour_contrast(features, neighbours=nearest, temperature=self.spec.temperature)
        neighbours = nearest_neighbours(features.detach(), k=self.spec.k)
        term = centred_bound if self.spec.term == "bound" else centred_exact
        return term(torch.sigmoid(logits), neighbours=neighbours)
