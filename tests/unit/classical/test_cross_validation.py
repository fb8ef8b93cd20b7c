"""Cross-validation on shared distances: scikit-learn's machines, refitted fold by fold, give the same."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.svm import SVC

from fissura.classical.cross_validation import CrossValidated, Folds, cross_validate, tour
from fissura.classical.distances import mean_squared_distances, squared_distances
from fissura.classical.scaling import UnitDistance
from fissura.core.errors import DataError, ResourceError, SpecError

CONFIGURATIONS = [(10.0**bound, 10.0**gamma) for bound in (-3, 0, 2, 4) for gamma in (-4, -1, 0, 1.5)]


def samples(
    rng: np.random.Generator, *, classes: int, count: int = 90, folds: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, 5] float32, labels 10, 20, ... and folds; every class is in every fold."""
    labels = 10 * (1 + np.arange(count) % classes)
    fold_of = (np.arange(count) // classes) % folds
    mixed = rng.permutation(count)
    features = rng.normal(size=(count, 5)) + 0.05 * labels[:, None] * rng.normal(size=5)
    return features[mixed].astype(np.float32), labels[mixed], fold_of[mixed]


def ours(
    features: np.ndarray,
    labels: np.ndarray,
    fold_of: np.ndarray,
    configurations: list[tuple[float, float]],
    *,
    tolerance: float = 1e-6,
    limit: int = 10_000_000,
    memory: int = 2**31,
    dtype: type = np.float32,
) -> CrossValidated:
    distances = squared_distances(features, dtype=dtype)
    return cross_validate(
        distances,
        labels=labels,
        fold_of=fold_of,
        configurations=configurations,
        scales=mean_squared_distances(distances, fold_of=fold_of),
        tolerance=tolerance,
        limit=limit,
        memory=memory,
    )


def assert_scikit_learn_agrees(
    found: CrossValidated,
    features: np.ndarray,
    labels: np.ndarray,
    fold_of: np.ndarray,
    configurations: list[tuple[float, float]],
) -> None:
    assert found.converged.all()
    for index, (bound, gamma) in enumerate(configurations):
        vectors = []
        for fold in range(fold_of.max() + 1):
            training, held = fold_of != fold, fold_of == fold
            scaling = UnitDistance().fit(features[training].astype(np.float64))
            machine = SVC(C=bound, gamma=gamma, tol=1e-6, decision_function_shape="ovo")
            machine.fit(scaling.transform(features[training].astype(np.float64)), labels[training])
            expected = machine.decision_function(scaling.transform(features[held].astype(np.float64)))
            expected = expected.reshape(held.sum(), -1)
            np.testing.assert_allclose(found.decisions[index, held], expected, atol=1e-3)
            predicted = machine.predict(scaling.transform(features[held].astype(np.float64)))
            sure = (np.abs(expected) > 1e-3).all(axis=1)
            np.testing.assert_array_equal(found.predictions[index, held][sure], predicted[sure])
            vectors.append(machine.n_support_.sum())
        assert found.support_vectors[index] == pytest.approx(np.mean(vectors), abs=1.5)


class TestDecisions:
    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_are_scikit_learn_s(self, classes: int, rng: np.random.Generator) -> None:
        data = samples(rng, classes=classes)
        assert_scikit_learn_agrees(ours(*data, CONFIGURATIONS, dtype=np.float64), *data, CONFIGURATIONS)

    def test_are_scikit_learn_s_where_samples_coincide_and_classes_are_unequal(
        self, rng: np.random.Generator
    ) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        features = np.round(features)
        labels[np.flatnonzero(labels == 20)[9:]] = 10
        fold_of = np.empty_like(labels)
        for label in (10, 20):
            fold_of[labels == label] = np.arange((labels == label).sum()) % 3
        configurations = [(0.1, 0.1), (1.0, 1.0), (100.0, 10.0)]
        data = (features, labels, fold_of)
        assert_scikit_learn_agrees(ours(*data, configurations), *data, configurations)

    def test_are_scikit_learn_s_when_every_fold_holds_one_sample(self, rng: np.random.Generator) -> None:
        features, labels, _ = samples(rng, classes=2, count=12)
        data = (features, labels, np.arange(12))
        assert_scikit_learn_agrees(ours(*data, [(1.0, 1.0)]), *data, [(1.0, 1.0)])

    def test_of_constant_features_are_one_constant_a_fold(self) -> None:
        labels, fold_of = np.array([0, 1] * 9), np.repeat([0, 1, 2], 6)
        found = ours(np.ones((18, 4), np.float32), labels, fold_of, [(1.0, 1.0)])
        assert np.ptp(found.decisions) <= 1e-6

    def test_are_the_same_alone_and_among_others(self, rng: np.random.Generator) -> None:
        data = samples(rng, classes=3)
        together = ours(*data, CONFIGURATIONS)
        for index in (0, 6, 15):
            alone = ours(*data, [CONFIGURATIONS[index]])
            np.testing.assert_allclose(alone.decisions[0], together.decisions[index], atol=1e-4)

    def test_are_the_same_with_room_for_few_rows(self, rng: np.random.Generator) -> None:
        data = samples(rng, classes=2)
        roomy, narrow = (ours(*data, CONFIGURATIONS[:6], memory=memory) for memory in (2**31, 4 * 90 * 7))
        np.testing.assert_array_equal(roomy.decisions, narrow.decisions)

    def test_are_the_same_for_sorted_samples(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=3)
        order = Folds.of(labels=labels, fold_of=fold_of).order
        mixed = ours(features, labels, fold_of, CONFIGURATIONS[5:8])
        runs = ours(features[order], labels[order], fold_of[order], CONFIGURATIONS[5:8])
        np.testing.assert_allclose(mixed.decisions[:, order], runs.decisions, atol=1e-4)

    def test_are_the_same_for_a_matrix_a_fold(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        distances = squared_distances(features)
        scales = mean_squared_distances(distances, fold_of=fold_of)
        each = [(distances / scale).astype(np.float32) for scale in scales]
        settings = {"labels": labels, "fold_of": fold_of, "configurations": CONFIGURATIONS[4:8]}
        one = cross_validate(distances, scales=scales, tolerance=1e-6, **settings)
        many = cross_validate(each, scales=np.ones(3), tolerance=1e-6, **settings)
        np.testing.assert_allclose(one.decisions, many.decisions, atol=1e-4)

    def test_are_the_same_in_threads_on_one_read_only_matrix(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        distances = squared_distances(features)
        distances.flags.writeable = False
        scales = mean_squared_distances(distances, fold_of=fold_of)

        def run(_: int) -> np.ndarray:
            return cross_validate(
                distances, labels=labels, fold_of=fold_of, configurations=CONFIGURATIONS, scales=scales
            ).decisions

        with ThreadPoolExecutor(2) as pool:
            first, *others = pool.map(run, range(4))
        for other in others:
            np.testing.assert_array_equal(first, other)

    def test_beyond_the_limit_of_iterations_are_said_not_to_have_converged(
        self, rng: np.random.Generator
    ) -> None:
        found = ours(*samples(rng, classes=2), [(1e-3, 1.0), (1e4, 0.1)], limit=45)
        assert found.converged.tolist() == [True, False]


class TestBadInput:
    def test_says_which_fold_leaves_which_class_out(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        with pytest.raises(DataError, match="without fold 1 no sample of class 20"):
            ours(features, labels, np.where(labels == 20, 1, fold_of), [(1.0, 1.0)])

    def test_refuses_one_class(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        with pytest.raises(DataError, match="two classes"):
            ours(features, np.ones_like(labels), fold_of, [(1.0, 1.0)])

    def test_refuses_more_folds_than_samples(self, rng: np.random.Generator) -> None:
        distances = squared_distances(rng.normal(size=(4, 2)))
        with pytest.raises(DataError, match="as many as there are samples"):
            cross_validate(
                distances,
                labels=np.array([0, 1, 0, 1]),
                fold_of=np.arange(4),
                configurations=[(1.0, 1.0)],
                scales=np.ones(5),
            )

    def test_refuses_an_empty_fold(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        with pytest.raises(DataError, match="fold 1 holds no sample"):
            ours(features, labels, np.where(fold_of == 1, 0, fold_of), [(1.0, 1.0)])

    def test_refuses_distances_that_are_no_numbers(self, rng: np.random.Generator) -> None:
        features, labels, fold_of = samples(rng, classes=2)
        distances = squared_distances(features)
        distances[7] = distances[:, 7] = np.nan
        with pytest.raises(DataError, match="for 1 samples"):
            cross_validate(
                distances, labels=labels, fold_of=fold_of, configurations=[(1.0, 1.0)], scales=np.ones(3)
            )

    @pytest.mark.parametrize(
        "configuration", [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0), (1.0, np.inf)], ids=str
    )
    def test_refuses_a_configuration_that_is_not_positive(
        self, configuration: tuple[float, float], rng: np.random.Generator
    ) -> None:
        with pytest.raises(SpecError, match="configuration 1"):
            ours(*samples(rng, classes=2), [(1.0, 1.0), configuration])


class TestDistances:
    @pytest.mark.parametrize("block", [1, 7, 1024])
    def test_are_the_literal_ones(self, block: int, rng: np.random.Generator) -> None:
        features = (100 + rng.normal(size=(30, 4))).astype(np.float32)
        features[3] = features[4]
        found = squared_distances(features, block=block)
        exact = features.astype(np.float64)
        np.testing.assert_allclose(found, ((exact[:, None] - exact) ** 2).sum(axis=2), rtol=1e-6)
        np.testing.assert_array_equal(found, found.T)
        assert found.dtype == np.float32
        assert found[3, 4] == 0

    def test_larger_than_the_memory_are_refused(self, rng: np.random.Generator) -> None:
        with pytest.raises(ResourceError, match=r"30 samples need .* take fewer images"):
            squared_distances(rng.normal(size=(30, 4)), memory=3599)

    def test_mean_is_what_training_features_are_scaled_by(self, rng: np.random.Generator) -> None:
        features, _, fold_of = samples(rng, classes=2)
        found = mean_squared_distances(squared_distances(features), fold_of=fold_of, block=16)
        for fold in range(3):
            scaling = UnitDistance().fit(features[fold_of != fold].astype(np.float64))
            assert found[fold] == pytest.approx(scaling.scale_**2, rel=1e-6)

    def test_are_refused_where_features_are_no_numbers(self) -> None:
        features = np.zeros((4, 3))
        features[1, 2] = features[3, 0] = np.nan
        with pytest.raises(DataError, match=r"2 of 12 values are not, in sample 1, sample 3 \(first in col"):
            squared_distances(features)


class TestTour:
    def test_visits_each_once_and_those_of_one_gamma_together(self) -> None:
        grid = [(bound, gamma) for bound in (1.0, 10.0, 100.0) for gamma in (0.1, 1.0)]
        order = tour(grid)
        assert sorted(order) == list(range(6))
        assert [grid[index][1] for index in order] == [0.1] * 3 + [1.0] * 3
        assert [grid[index][0] for index in order] == [1.0, 10.0, 100.0, 100.0, 10.0, 1.0]

    def test_of_nothing_is_nothing(self) -> None:
        assert tour([]) == []
