"""Cross-validation of many C-SVMs with RBF kernels on one matrix of squared distances.

All configurations of a backbone's features share the squared distances; a configuration exponentiates the
rows that its machines need and solves the folds' problems on them. Decisions on held-out samples are summed
in float64. Successive configurations are similar, and each fold's machines start from the coefficients of the
previous configuration, scaled to the new C, which keeps bounds and sum.

Classes and votes are those of scikit-learn's `SVC`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite, log

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from fissura.classical.kernel_rows import kernel_rows, renewed
from fissura.classical.solver import decide, solve
from fissura.core.errors import DataError, SpecError


@dataclass(frozen=True)
class Folds:
    """The folds of a cross-validation, and an order in which each fold's each class is contiguous.

    Attributes:
        classes: the labels' values, lowest first.
        order: samples sorted by fold, then class; ties as they came. Samples that come in this order
            need no index to read distances, which saves about a tenth of the time.
        cells: the starts of each fold's each class in that order, [k, c] flattened, then the end.
    """

    classes: Int64[np.ndarray, " c"]
    order: Int64[np.ndarray, " n"]
    cells: Int64[np.ndarray, " kc1"]

    @classmethod
    def of(
        cls, *, labels: Int[np.ndarray, " n"], fold_of: Int[np.ndarray, " n"], count: int | None = None
    ) -> "Folds":
        """The folds 0 .. count - 1 (by default, as many as `fold_of` names).

        Raises:
            DataError: fewer than two folds or classes, fewer samples than folds, a fold without a sample, or
                one whose training samples lack a class; all at once.
        """
        classes, class_of = np.unique(labels, return_inverse=True)
        count = int(fold_of.max(initial=-1)) + 1 if count is None else count
        problems = []
        if len(labels) != len(fold_of):
            problems.append(
                f"folds: one fold a sample, and there are {len(fold_of)} for {len(labels)} labels"
            )
        elif len(labels) < count or count < 2:
            problems.append(f"folds: from 2 to as many as there are samples ({len(labels)}), not {count}")
        elif len(classes) < 2:
            problems.append(f"labels: two classes at least are needed, and all are {classes.tolist()}")
        elif fold_of.min() < 0 or fold_of.max() >= count:
            problems.append(f"folds: 0 to {count - 1}, not {fold_of.min()} to {fold_of.max()}")
        if problems:
            raise DataError(*problems)
        held = np.zeros((count, len(classes)), dtype=np.int64)
        np.add.at(held, (fold_of, class_of), 1)
        problems += [f"folds: fold {fold} holds no sample" for fold in np.flatnonzero(held.sum(axis=1) == 0)]
        problems += [
            f"folds: without fold {fold} no sample of class {classes[label]} is left to train on; use fewer "
            "folds, or more samples of that class"
            for fold, label in np.argwhere(held.sum(axis=0) - held == 0)
        ]
        if problems:
            raise DataError(*problems)
        order = np.lexsort((class_of, fold_of))
        return cls(classes.astype(np.int64), order, np.concatenate([[0], held.ravel().cumsum()]))

    @property
    def count(self) -> int:
        """k, the number of folds."""
        return (len(self.cells) - 1) // len(self.classes)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of classes, as indices into `classes`: one machine each."""
        return list(combinations(range(len(self.classes)), 2))

    def held_out(self, fold: int) -> slice:
        """The positions of a fold's samples in the order."""
        width = len(self.classes)
        return slice(int(self.cells[fold * width]), int(self.cells[(fold + 1) * width]))

    def segments(self, fold: int, pair: tuple[int, int]) -> Int64[np.ndarray, "s 2"]:
        """The positions of the training samples of the pair's classes in the order, as ranges [start,
        stop)."""
        runs: list[list[int]] = []
        for other in range(self.count):
            for label in pair:
                start, stop = self.cells[other * len(self.classes) + label :][:2].tolist()
                if other == fold or start == stop:
                    continue
                if runs and runs[-1][1] == start:
                    runs[-1][1] = stop
                else:
                    runs.append([start, stop])
        return np.array(runs, dtype=np.int64)


@dataclass(frozen=True)
class CrossValidated:
    """Results on the held-out samples, one row a configuration, samples in the caller's order.

    Attributes:
        decisions: decision values of the pairs of classes, in the order of `Folds.pairs`, as
            `SVC(decision_function_shape="ovo")` gives them: with two classes positive means the second, with
            more the first of the pair.
        predictions: labels.
        support_vectors: the mean number over the folds.
        converged: whether all machines of the configuration reached the tolerance.
    """

    decisions: Float32[np.ndarray, "m n pairs"]
    predictions: Int64[np.ndarray, "m n"]
    support_vectors: Float64[np.ndarray, " m"]
    converged: Bool[np.ndarray, " m"]


def cross_validate(
    distances: Float[np.ndarray, "n n"] | Sequence[Float[np.ndarray, "n n"]],
    *,
    labels: Int[np.ndarray, " n"],
    fold_of: Int[np.ndarray, " n"],
    configurations: Sequence[tuple[float, float]],
    scales: Float[np.ndarray, " k"],
    tolerance: float = 1e-3,
    limit: int = 10_000_000,
    memory: int = 2**31,
) -> CrossValidated:
    """Trains each configuration's machines on all folds but one and evaluates them on that one, fold by fold.

    Args:
        distances: squared distances between all samples; or one such matrix a fold, where the features were
            whitened on each fold's training samples. It may be read-only, or mapped from a file. Use float32;
            float64 only for a large C on a nearly constant kernel, where rounding matters.
        labels: the samples' classes, any integers.
        fold_of: each sample's fold, 0 .. k - 1.
        configurations: (C, gamma) each.
        scales: what gamma is divided by in each fold: the kernel is `exp(-gamma / scale * distances)`. See
            `mean_squared_distances`; 0, where all training samples are equal, counts as 1.
        tolerance: of the optimality conditions, as `SVC`'s `tol`.
        limit: the most iterations of one machine; one that reaches it is kept and reported as not converged.
        memory: bytes for the kept rows of the kernel, 4 n each. If all n fit (2 GiB: up to n = 23,000), none
            is computed twice for a kernel; else the oldest are replaced.

    Raises:
        SpecError: a C, a gamma, the tolerance or the limit is not positive and finite.
        DataError: sizes disagree, a distance is not a number, or the folds break a rule (`Folds.of`).
    """
    _check_settings(configurations, tolerance=tolerance, limit=limit)
    folds = Folds.of(labels=labels, fold_of=fold_of, count=len(scales))
    shared = isinstance(distances, np.ndarray)
    matrices = [distances] * folds.count if isinstance(distances, np.ndarray) else list(distances)
    _check_matrices(matrices, folds=folds, scales=scales)

    count, samples, pairs = len(configurations), len(labels), folds.pairs
    decisions = np.zeros((count, samples, len(pairs)), dtype=np.float32)
    vectors, converged = np.zeros(count), np.ones(count, dtype=np.bool_)
    sorted_already = bool((folds.order == np.arange(samples)).all())
    kernel = kernel_rows(
        matrices[0],
        order=np.empty(0, np.int64) if sorted_already else folds.order,
        slots=memory // (4 * samples),
    )
    targets = [_targets(labels[folds.order], folds=folds, pair=pair) for pair in pairs]
    segments = [[folds.segments(fold, pair) for pair in pairs] for fold in range(folds.count)]
    beta = np.zeros((folds.count, len(pairs), samples))
    bound_of = [0.0] * folds.count
    divisors = [float(scale) if scale > 0 else 1.0 for scale in scales]
    current: tuple[int, float] | None = None
    alike = shared and len(set(divisors)) == 1
    for index, fold in _jobs(tour(configurations), folds=folds.count, alike=alike):
        bound, gamma = configurations[index]
        factor = -gamma / divisors[fold] / log(2)
        if current != (0 if shared else fold, factor):
            kernel = renewed(kernel, matrices[fold])
            current = (0 if shared else fold, factor)
        held_out = folds.held_out(fold)
        decision = np.empty(held_out.stop - held_out.start)
        for pair in range(len(pairs)):
            coefficients, training = beta[fold, pair], segments[fold][pair]
            if bound_of[fold]:
                coefficients *= bound / bound_of[fold]
            intercept, gap, _ = solve(
                kernel, factor, training, targets[pair], bound, coefficients, tolerance, limit
            )
            converged[index] &= gap <= tolerance
            decide(kernel, factor, training, coefficients, intercept, held_out.start, decision)
            decisions[index, folds.order[held_out], pair] = decision
        bound_of[fold] = bound
        vectors[index] += np.count_nonzero(beta[fold].any(axis=0)) / folds.count
    return CrossValidated(decisions, votes(decisions, folds=folds), vectors, converged)


def votes(decisions: Float[np.ndarray, "m n pairs"], *, folds: Folds) -> Int64[np.ndarray, "m n"]:
    """The labels with most votes of the pairs' decisions; of equals the first (libsvm's rule)."""
    if len(folds.classes) == 2:
        predicted: Int64[np.ndarray, "m n"] = folds.classes[(decisions[..., 0] >= 0).astype(np.int64)]
        return predicted
    ballots = np.zeros((*decisions.shape[:2], len(folds.classes)), dtype=np.int64)
    for pair, (first, second) in enumerate(folds.pairs):
        ballots[..., first] += decisions[..., pair] > 0
        ballots[..., second] += decisions[..., pair] <= 0
    elected: Int64[np.ndarray, "m n"] = folds.classes[ballots.argmax(axis=2)]
    return elected


def tour(configurations: Sequence[tuple[float, float]]) -> list[int]:
    """An order of the configurations: from the least C and gamma always to the nearest remaining one in (log
    C, log gamma), first those of the same gamma, which share the kernel."""
    points = np.log(np.array(configurations, dtype=np.float64).reshape(-1, 2))
    left = np.ones(len(points), dtype=np.bool_)
    order: list[int] = []
    while left.any():
        if order:
            step = points - points[order[-1]]
            cost = (step**2).sum(axis=1) + 1e6 * (step[:, 1] != 0)
        else:
            cost = points.sum(axis=1)
        order.append(int(np.where(left, cost, np.inf).argmin()))
        left[order[-1]] = False
    return order


def _jobs(order: Sequence[int], *, folds: int, alike: bool) -> Iterator[tuple[int, int]]:
    """(configuration, fold) in an order that keeps those of one kernel together: all folds share it where
    they are `alike`, else the configurations of one gamma do."""
    if alike:
        return ((index, fold) for index in order for fold in range(folds))
    return ((index, fold) for fold in range(folds) for index in order)


def _targets(
    labels: Int[np.ndarray, " n"], *, folds: Folds, pair: tuple[int, int]
) -> Float64[np.ndarray, " n"]:
    positive = pair[1] if len(folds.classes) == 2 else pair[0]
    return np.where(labels == folds.classes[positive], 1.0, -1.0)


def _check_settings(configurations: Sequence[tuple[float, float]], *, tolerance: float, limit: int) -> None:
    problems = [
        f"configuration {index}: C and gamma must be positive and finite, not C={bound:g}, gamma={gamma:g}"
        for index, (bound, gamma) in enumerate(configurations)
        if not (bound > 0 and gamma > 0 and isfinite(bound) and isfinite(gamma))
    ]
    if not (tolerance > 0 and isfinite(tolerance)):
        problems.append(f"tolerance: must be positive and finite, not {tolerance}")
    if limit < 1:
        problems.append(f"limit: at least one iteration, not {limit}")
    if problems:
        raise SpecError(*problems)


def _check_matrices(
    matrices: Sequence[Float[np.ndarray, "n n"]], *, folds: Folds, scales: Float[np.ndarray, " k"]
) -> None:
    samples, problems = len(folds.order), []
    if len(matrices) != folds.count:
        problems.append(f"distances: one matrix, or one for each of {folds.count} folds, not {len(matrices)}")
    for fold, matrix in enumerate(matrices):
        right = matrix.shape == (samples, samples) and matrix.flags.c_contiguous
        if not (right and matrix.dtype == matrices[0].dtype and matrix.dtype in (np.float32, np.float64)):
            problems.append(
                f"distances: float32 or float64 [{samples}, {samples}], one row after the other, and fold "
                f"{fold}'s are {matrix.dtype} {list(matrix.shape)}"
            )
        # a feature that is not finite spoils its sample's row and column: one row shows them all
        elif not (np.isfinite(matrix[0]).all() and np.isfinite(matrix.diagonal()).all()):
            bad = np.count_nonzero(~np.isfinite(matrix.diagonal()))
            problems.append(
                f"distances: all must be finite, and fold {fold}'s are not, for {bad} samples at least; look "
                "at the features"
            )
    if not (np.isfinite(scales).all() and (np.asarray(scales) >= 0).all()):
        problems.append(f"scales: mean squared distances are finite and not negative, unlike {scales}")
    if problems:
        raise DataError(*problems)
