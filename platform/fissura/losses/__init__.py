"""Segmentation losses. `AnyLoss` is the registry: to add a loss, add its spec to the union."""

from typing import Annotated

from pydantic import Field

from fissura.losses.ambiguity import AmbiguityAware, AmbiguityAwareLoss
from fissura.losses.balanced_bce import BalancedBCE, BalancedBCELoss
from fissura.losses.bce import BCE, BCELoss, MarginlessBCE, MarginlessBCELoss
from fissura.losses.boundary import Boundary, BoundaryLoss
from fissura.losses.cldice import SoftClDice, SoftClDiceLoss, soft_skeleton
from fissura.losses.cluster_terms import clustering_bound, clustering_exact, nearest_neighbour_contrast
from fissura.losses.clustering import Clustering, ClusteringLoss
from fissura.losses.dice import Dice, DiceLoss
from fissura.losses.dice_bce import DiceBCE
from fissura.losses.focal import Focal, FocalLoss
from fissura.losses.lin_focal import LinFocal, LinFocalLoss
from fissura.losses.loss import Criterion, LossSpec, SegmentationLoss
from fissura.losses.neighbours import nearest_neighbours
from fissura.losses.ohem_bce import OhemBCE, OhemBCELoss
from fissura.losses.poly import Poly, PolyLoss
from fissura.losses.regions import ambiguous_region, boundary_region, marginal_region
from fissura.losses.robust_dice import RobustDice, RobustDiceLoss
from fissura.losses.robust_t import RobustT, RobustTLoss
from fissura.losses.skeleton_recall import SkeletonRecall, SkeletonRecallLoss
from fissura.losses.topology import PersistentTopology, TopologyLoss
from fissura.losses.tversky import FocalTversky, Tversky, TverskyLoss
from fissura.losses.vgg import VGG, VGGLoss
from fissura.losses.weighted_bce import WeightedBCE, WeightedBCELoss
from fissura.losses.weighted_sum import Term, WeightedSum

AnyLoss = Annotated[
    BCE
    | MarginlessBCE
    | WeightedBCE
    | BalancedBCE
    | OhemBCE
    | Dice
    | DiceBCE
    | Focal
    | LinFocal
    | Poly
    | Tversky
    | FocalTversky
    | RobustDice
    | RobustT
    | SoftClDice
    | SkeletonRecall
    | Boundary
    | PersistentTopology
    | VGG
    | AmbiguityAware
    | Clustering
    | WeightedSum,
    Field(discriminator="kind"),
]
# a sum's terms are of the union that it belongs to
Term.model_rebuild()
WeightedSum.model_rebuild()

__all__ = [
    "BCE",
    "VGG",
    "AmbiguityAware",
    "AmbiguityAwareLoss",
    "AnyLoss",
    "BCELoss",
    "BalancedBCE",
    "BalancedBCELoss",
    "Boundary",
    "BoundaryLoss",
    "Clustering",
    "ClusteringLoss",
    "Criterion",
    "Dice",
    "DiceBCE",
    "DiceLoss",
    "Focal",
    "FocalLoss",
    "FocalTversky",
    "LinFocal",
    "LinFocalLoss",
    "LossSpec",
    "MarginlessBCE",
    "MarginlessBCELoss",
    "OhemBCE",
    "OhemBCELoss",
    "PersistentTopology",
    "Poly",
    "PolyLoss",
    "RobustDice",
    "RobustDiceLoss",
    "RobustT",
    "RobustTLoss",
    "SegmentationLoss",
    "SkeletonRecall",
    "SkeletonRecallLoss",
    "SoftClDice",
    "SoftClDiceLoss",
    "Term",
    "TopologyLoss",
    "Tversky",
    "TverskyLoss",
    "VGGLoss",
    "WeightedBCE",
    "WeightedBCELoss",
    "WeightedSum",
    "ambiguous_region",
    "boundary_region",
    "clustering_bound",
    "clustering_exact",
    "marginal_region",
    "nearest_neighbour_contrast",
    "nearest_neighbours",
    "soft_skeleton",
]
