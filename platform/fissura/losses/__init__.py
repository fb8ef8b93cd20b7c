"""Segmentation losses. `AnyLoss` is the registry: to add a loss, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.losses.ambiguity import AmbiguityAware, AmbiguityAwareLoss
from fissura.losses.bce import BCE, BCELoss
from fissura.losses.cluster_terms import clustering_bound, clustering_exact, nearest_neighbour_contrast
from fissura.losses.clustering import Clustering, ClusteringLoss
from fissura.losses.dice import Dice, DiceLoss
from fissura.losses.dice_bce import DiceBCE, DiceBCELoss
from fissura.losses.focal import Focal, FocalLoss
from fissura.losses.loss import Criterion, LossSpec, SegmentationLoss
from fissura.losses.neighbours import nearest_neighbours
from fissura.losses.regions import ambiguous_region, marginal_region

AnyLoss = Annotated[BCE | Dice | DiceBCE | Focal | AmbiguityAware | Clustering, Field(discriminator="kind")]

__all__ = [
    "BCE",
    "AmbiguityAware",
    "AmbiguityAwareLoss",
    "AnyLoss",
    "BCELoss",
    "Clustering",
    "ClusteringLoss",
    "Criterion",
    "Dice",
    "DiceBCE",
    "DiceBCELoss",
    "DiceLoss",
    "Focal",
    "FocalLoss",
    "LossSpec",
    "SegmentationLoss",
    "ambiguous_region",
    "clustering_bound",
    "clustering_exact",
    "marginal_region",
    "nearest_neighbour_contrast",
    "nearest_neighbours",
]
