"""Compresses support vector machines: fewer directions, fewer vectors, fewer bits.

The machine is read in coordinates z in which its kernel is `exp(-|z - v|^2 / 2)`. Few directions matter to
its decisions f: the span of the leading eigenvectors of the mean of `grad f grad f^T` (the active subspace;
Constantine, SIAM 2015). The gradients are taken at points like new samples: near the training samples but not
at them, where an overfitted machine would mislead. Ridge regression fits the smaller machine to the decisions
at these points, with projection and vectors as they will be stored, so that it compensates their rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Integer

from fissura.classical.landmarks import centres, frequencies, kernel, optimised
from fissura.classical.quantisation import Bits, Stored, stored
from fissura.classical.ridge import ridge
from fissura.core.errors import DataError
from fissura.core.seeding import derive

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from sklearn.svm import SVC

    from fissura.classical.compression import Compression

SAMPLES = 3_000  # the most training samples used, so that it takes seconds
DRAWS = 2  # points near each


@dataclass(frozen=True)
class Machine:
    """A fitted machine in its own coordinates.

    `to` is the matrix from centred features to coordinates, or None: the identity times `scale`. `vectors`,
    `weights` and `intercept` define f: `f(z) = exp(-|z - vectors|^2 / 2) @ weights + intercept`.
    """

    mean: Float[np.ndarray, " d"]
    to: Float[np.ndarray, "d r"] | None
    scale: float
    vectors: Float[np.ndarray, "m r"]
    weights: Float[np.ndarray, "m pairs"]
    intercept: Float[np.ndarray, " pairs"]

    def coordinates(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
        """The coordinates z of each sample."""
        centred = features.astype(np.float64) - self.mean
        z: Float[np.ndarray, "n r"] = centred * self.scale if self.to is None else centred @ self.to
        return z

    def decisions(self, z: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n pairs"]:
        """f for every pair of classes."""
        f: Float[np.ndarray, "n pairs"] = kernel(z, self.vectors) @ self.weights + self.intercept
        return f

    def directions(self, z: Float[np.ndarray, "n r"], *, count: int) -> Float[np.ndarray, "r count"]:
        """The `count` orthonormal directions along which f changes most at `z`."""
        from scipy.linalg import eigh

        values = kernel(z, self.vectors)
        rank = z.shape[1]
        energy = np.zeros((rank, rank))
        for weights in self.weights.T:
            weighted = values * weights
            gradient = weighted @ self.vectors - weighted.sum(axis=1)[:, None] * z
            energy += gradient.T @ gradient
        vectors: Float[np.ndarray, "r count"] = eigh(energy, subset_by_index=[rank - count, rank - 1])[1]
        return vectors[:, ::-1]


class _Neighbours:
    """Points near samples, like new ones: `w z_i + sqrt(1 - w^2) z_j`, w from 0.7 to 1, j drawn at random.

    Where the mean of z is 0, so is theirs, and their covariance is that of the samples. They are the same
    points in other linear coordinates of the samples.
    """

    def __init__(self, count: int, *, rng: np.random.Generator) -> None:
        self.own = np.tile(np.arange(count), DRAWS)
        self.other = rng.integers(count, size=len(self.own))
        self.share = rng.uniform(0.7, 1, (len(self.own), 1))

    def __call__(self, z: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "k r"]:
        points: Float[np.ndarray, "k r"] = self.share * z[self.own]
        points += np.sqrt(1 - self.share**2) * z[self.other]
        return points


def compress_svm(
    pipeline: "Pipeline",
    *,
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, " n"],
    compression: "Compression",
    seed: int,
) -> tuple[str, Stored]:
    """The kind of Compact, and its arrays.

    Raises:
        DataError: the features are not those of the fit.
    """
    rng = np.random.default_rng(derive(seed, "compression"))
    machine = read(pipeline, features=features)
    bits = compression.bits
    support = features[pipeline["classifier"].support_]
    if compression.method == "none":
        arrays, project = _stored_projection(machine, None, bits=bits)
        vectors, _ = stored("vectors", project(support), bits=bits)
        return "rbf", arrays | vectors | _head(machine.weights, machine.intercept)

    chosen = features[rng.permutation(len(features))[:SAMPLES]]
    near = _Neighbours(len(chosen), rng=rng)
    points = near(machine.coordinates(chosen))
    target = machine.decisions(points)
    basis = None
    if compression.rank is not None and compression.rank < points.shape[1]:
        basis = machine.directions(points, count=compression.rank)
    arrays, project = _stored_projection(machine, basis, bits=bits)
    z = project(chosen)
    points = near(z)

    if compression.method == "fourier":
        drawn = frequencies(compression.components, rank=z.shape[1], rng=rng)
        waves, used = stored("frequencies", drawn, bits=bits)
        phases = rng.uniform(0, 2 * np.pi, len(used)).astype(np.float32)
        fitted = ridge(np.cos(points @ used.T + phases), target)
        return "fourier", arrays | waves | {"phases": phases} | _head(*fitted)

    if compression.method == "prune":
        # of equal weights (all at the bound C) keep random ones, not those of the first classes
        influence = np.linalg.norm(machine.weights, axis=1)
        order = np.lexsort([rng.random(len(influence)), -influence])
        landmarks = project(support[order[: max(1, round((1 - compression.share) * len(order)))]])
    else:
        landmarks = centres(z, count=compression.components, rng=rng)
        if compression.method == "reduced_set":
            weights, intercept = ridge(kernel(points, landmarks), target)
            landmarks = optimised(
                landmarks, points=points, target=target, weights=weights, intercept=intercept
            )
    vectors, used = stored("vectors", landmarks, bits=bits)
    return "rbf", arrays | vectors | _head(*ridge(kernel(points, used), target))


def read(pipeline: "Pipeline", *, features: Float[np.ndarray, "n d"]) -> Machine:
    """The machine of a fitted pipeline, with the signs of scikit-learn's decisions.

    Raises:
        DataError: the features are not those of the fit.
    """
    classifier, scaling = pipeline["classifier"], pipeline["scaling"]
    whitening = pipeline.named_steps.get("whitening")
    scale = float(np.sqrt(2 * float(classifier._gamma)) / scaling.scale_)
    support = classifier.support_
    if support.max() >= len(features) or not np.allclose(
        pipeline[:-1].transform(features[support]), classifier.support_vectors_, rtol=1e-3, atol=1e-4
    ):
        raise DataError(
            "features: the pipeline's support vectors are not among them where they were in its fit; give "
            "the features of the fit in the same order"
        )
    mean = features.mean(axis=0, dtype=np.float64) if whitening is None else whitening.mean_
    to = None if whitening is None else scale * whitening.components_.T.astype(np.float64)
    unplaced = Machine(
        mean=mean.astype(np.float32).astype(np.float64),
        to=to,
        scale=scale,
        vectors=np.empty((0, 0)),
        weights=_pair_weights(classifier),
        intercept=classifier.intercept_,
    )
    return replace(unplaced, vectors=unplaced.coordinates(features[support]))


def _pair_weights(classifier: "SVC") -> Float[np.ndarray, "m pairs"]:
    """The weight of each support vector in the decision of each pair of classes.

    libsvm keeps, for a vector of class c, one weight for each other class, in order; vectors are grouped by
    class.
    """
    counts = classifier.n_support_
    owner = np.repeat(np.arange(len(counts)), counts)
    pairs = [(i, j) for i in range(len(counts)) for j in range(i + 1, len(counts))]
    weights = np.zeros((len(owner), len(pairs)))
    for column, (i, j) in enumerate(pairs):
        weights[owner == i, column] = classifier.dual_coef_[j - 1, owner == i]
        weights[owner == j, column] = classifier.dual_coef_[i, owner == j]
    return weights


def _stored_projection(
    machine: Machine, basis: Float[np.ndarray, "r k"] | None, *, bits: Bits
) -> tuple[Stored, Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n k"]]]:
    """The arrays of the projection on `basis` (None: on all coordinates), and the function that they
    represent."""
    to = machine.to
    if basis is not None:
        to = machine.scale * basis if to is None else to @ basis
    mean = {"mean": machine.mean.astype(np.float32)}
    if to is None:
        scale = np.full(len(machine.mean), machine.scale, np.float32)
        return mean | {"scale": scale}, replace(machine, scale=float(scale[0])).coordinates
    matrix, used = stored("matrix", to, bits=bits)
    return mean | matrix, replace(machine, to=used).coordinates


def _head(weights: Float[np.ndarray, "m pairs"], intercept: Float[np.ndarray, " pairs"]) -> Stored:
    """The machine's linear output layer, float32: it is a small part of the file."""
    return {"coefficients": weights.astype(np.float32), "intercept": intercept.astype(np.float32)}
