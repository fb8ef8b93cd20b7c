"""The shared inputs of a classification study's trials, each made once: backbones, features, folds,
distances."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import ray
import torch
from jaxtyping import Float32, Int64
from ray import ObjectRef

from fissura.classical.estimators import BackboneHead
from fissura.classification.cross_validation_score import check_features, fold_distances
from fissura.classification.recipe import LEARNT, ClassifierRecipe
from fissura.classification.roles import Roles, assign_roles, fold_of
from fissura.classification.trained_head import TrainedHead
from fissura.core.progress import Say
from fissura.core.seeding import derive
from fissura.core.spec import digest
from fissura.data.labelled import KeyedImage, LabelledDataset, common_classes, image_keys
from fissura.distributed.preflight import Slots
from fissura.distributed.training.features import ExtractionWorkers, features_of
from fissura.distributed.training.learn_backbone import learn_backbone
from fissura.models.backbones import FeatureNetwork

MOST_SHARED = 8
"""How many distances are kept, one for each backbone and whitening; each has folds x images squared."""


@dataclass(frozen=True)
class TrainingFeatures:
    """The classifier's training images for one recipe; `features` is in the object store."""

    features: ObjectRef
    labels: Int64[np.ndarray, " n"]
    fold_of: Int64[np.ndarray, " n"]


class TrialInputs:
    """Backbones, features and distances of the images of `datasets`, below the folder `storage` that all
    nodes share.

    Names unreadable images once through `say`, and skips them.
    """

    def __init__(
        self,
        datasets: Sequence[LabelledDataset],
        *,
        storage: Path,
        cache: Path | None,
        content: str,
        workers: int,
        slots: Slots,
        address: str | None,
        say: Say,
    ) -> None:
        self.datasets, self.content = tuple(datasets), content
        self._storage, self._cache = storage, cache
        self._workers, self._slots, self._address, self._say = workers, slots, address, say
        self._features: dict[str, Float32[np.ndarray, "n d"]] = {}
        self._samples: dict[str, TrainingFeatures] = {}
        self._distances: dict[str, ObjectRef] = {}
        self._unread: set[int] = set()

    @cached_property
    def images(self) -> list[KeyedImage]:
        """All images, in the order of the features' rows."""
        return image_keys(self.datasets, directory=self._cache)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, the lowest first.

        Raises:
            DataError: the data sets have different ones.
        """
        return common_classes(self.datasets)

    def roles(self, recipe: ClassifierRecipe) -> Roles:
        """The images that train the backbone, those that train the classifier, and the test images."""
        roles = assign_roles(
            [keyed.image.label for keyed in self.images],
            [keyed.group for keyed in self.images],
            [keyed.image.split for keyed in self.images],
            backbone_share=recipe.backbone_share,
            seed=recipe.seed,
        )
        # drawn from all images, so that an unreadable image does not move the others
        unread = list(self._unread)
        return Roles(roles.backbone, np.setdiff1d(roles.classifier, unread), np.setdiff1d(roles.test, unread))

    def weights(self, recipe: ClassifierRecipe) -> Path | None:
        """The file of a backbone learnt from these images, which is learnt first if missing; None if the
        recipe names other weights."""
        if recipe.backbone.weights not in LEARNT:
            return None
        chosen = self.roles(recipe).backbone
        return learn_backbone(
            recipe.backbone,
            recipe.training,
            [self.images[row] for row in chosen],
            classes=self.classes,
            storage=self._storage / "backbones",
            workers=self._workers,
            cpus=self._slots.cpus,
            address=self._address,
            say=self._say,
        )

    def head(self, recipe: ClassifierRecipe) -> TrainedHead | None:
        """The head that the recipe's backbone learnt with; None if its classifier is another.

        Raises:
            DataError: the backbone was learnt before heads were kept.
        """
        if not isinstance(recipe.classifier, BackboneHead) or (weights := self.weights(recipe)) is None:
            return None
        return TrainedHead.read(weights.parent)

    def network(self, recipe: ClassifierRecipe) -> FeatureNetwork:
        """The recipe's backbone, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(backbone_seed(recipe))
            return recipe.backbone.build(weights=self.weights(recipe))

    def features(self, recipe: ClassifierRecipe) -> Float32[np.ndarray, "n d"]:
        """The features of all images, a row each; NaN for those that cannot be read.

        Raises:
            DataError: no image can be read, or the features are of no use.
        """
        key = _backbone_key(recipe)
        if key not in self._features:
            weights = self.weights(recipe)
            slots = (
                Slots(self._slots.concurrent * self._slots.cpus, 1, 0.0)
                if not self._slots.gpus
                else self._slots
            )
            with ExtractionWorkers(slots) as workers:
                extracted = features_of(
                    self.images,
                    backbone=recipe.backbone,
                    weights=weights,
                    seed=backbone_seed(recipe),
                    directory=self._storage / "features",
                    workers=workers,
                    say=self._say,
                )
            rows = {id(keyed): row for row, keyed in enumerate(self.images)}
            matrix = np.full((len(rows), recipe.backbone.dimensions), np.nan, dtype=np.float32)
            matrix[[rows[id(keyed)] for keyed in extracted.images]] = extracted.features()
            self._unread |= set(np.flatnonzero(np.isnan(matrix[:, 0])).tolist())
            self._features[key] = matrix
        return self._features[key]

    def of(self, recipe: ClassifierRecipe) -> TrainingFeatures:
        """The classifier's training images with their folds.

        Raises:
            DataError: one class only, fewer groups than folds, or features that are of no use.
        """
        key = f"{_backbone_key(recipe)} {recipe.folds}"
        if key not in self._samples:
            features = self.features(recipe)
            rows = self.roles(recipe).classifier
            labels = np.array([self.images[row].image.label for row in rows])
            folds = fold_of(
                labels, [self.images[row].group for row in rows], folds=recipe.folds, seed=recipe.seed
            )
            check_features(features[rows])
            # distances of samples in this order are read without an index
            order = np.lexsort((labels, folds))
            self._samples[key] = TrainingFeatures(ray.put(features[rows[order]]), labels[order], folds[order])
        return self._samples[key]

    def distances(self, recipe: ClassifierRecipe) -> ObjectRef:
        """The distances that all SVMs of this backbone and whitening share, in the object store; those of the
        `MOST_SHARED` that were asked for last are kept."""
        key = distances_key(recipe)
        shared = self._distances.pop(key, None)
        if shared is None:
            sample = self.of(recipe)
            task = ray.remote(num_cpus=self._slots.cpus)(_share_distances)
            shared = task.remote(sample.features, sample.fold_of, recipe.plain())
        self._distances[key] = shared
        while len(self._distances) > MOST_SHARED:
            # running settings hold references to theirs
            del self._distances[next(iter(self._distances))]
        return shared


def distances_key(recipe: ClassifierRecipe) -> str:
    """The key of the distances that settings share."""
    return f"{_backbone_key(recipe)} {recipe.folds} {recipe.whitening}"


def backbone_seed(recipe: ClassifierRecipe) -> int:
    """The seed of a backbone's random weights."""
    return derive(recipe.seed, "backbone") % 2**32


def _backbone_key(recipe: ClassifierRecipe) -> str:
    learnt = recipe.training.plain() if recipe.backbone.weights in LEARNT else None
    return digest([recipe.backbone.plain(), learnt, recipe.backbone_share, recipe.seed])


def _share_distances(
    features: Float32[np.ndarray, "n d"], fold_of: Int64[np.ndarray, " n"], plain: dict[str, object]
) -> object:
    """A Ray task: the distances of a backbone and a whitening."""
    recipe = ClassifierRecipe.load(plain, source="trial recipe")
    return fold_distances(features, fold_of=fold_of, whitening=recipe.whitening)
