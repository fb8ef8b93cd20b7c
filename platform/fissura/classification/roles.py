"""Assigns whole groups of images, drawn by the seed, to the backbone, the classifier and the test."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from fissura.core.errors import DataError
from fissura.core.seeding import derive

TENTHS = 10


@dataclass(frozen=True)
class Roles:
    """Indices of the images of the backbone, the classifier and the test."""

    backbone: Int64[np.ndarray, " b"]
    classifier: Int64[np.ndarray, " c"]
    test: Int64[np.ndarray, " t"]


def assign_roles(
    labels: Sequence[int], groups: Sequence[str], splits: Sequence[str], *, backbone_share: float, seed: int
) -> Roles:
    """Divides the training images, stratified by class; `backbone_share` is rounded to tenths.

    Raises:
        DataError: a class has too few groups to divide.
    """
    split = np.array(splits)
    training, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    tenths = round(TENTHS * backbone_share)
    if not tenths:
        return Roles(training[:0], training, test)
    fold = fold_of(
        np.array(labels)[training],
        [groups[index] for index in training.tolist()],
        folds=TENTHS,
        seed=derive(seed, "backbone share"),
    )
    return Roles(training[fold < tenths], training[fold >= tenths], test)


def fold_of(
    labels: Int64[np.ndarray, " n"], groups: Sequence[str], *, folds: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """The fold of each image, 0 to folds - 1: stratified by class, whole groups at a time.

    Raises:
        DataError: one class only, or a class with fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    present = Counter(label for label, _ in set(zip(labels.tolist(), groups, strict=True)))
    if len(present) < 2:
        raise DataError(
            f"a classifier tells classes apart, and the {len(labels)} training images are all of one; add"
            " images of another class"
        )
    few = {label: count for label, count in sorted(present.items()) if count < folds}
    if few:
        raise DataError(
            *(
                f"class {label} has {count} groups of images for {folds} folds; add images, or set `folds` to"
                f" {max(count, 2)} or fewer"
                for label, count in few.items()
            )
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    folds_of = np.empty(len(labels), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros((len(labels), 1)), labels, groups)):
        folds_of[held_out] = fold
    return folds_of
