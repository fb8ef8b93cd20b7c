"""Compression that takes nothing away is exact; each that does takes little; slow literal forms agree."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import check_grad
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from fissura.classical.compact import Compact
from fissura.classical.compress import compact
from fissura.classical.compression import Compression, check_method
from fissura.classical.estimators import (
    SVM,
    AnyClassifier,
    AnyWhitening,
    Forest,
    NoWhitening,
    ZCAWhitening,
    pipeline,
)
from fissura.classical.forest_compression import level_order, pruned, read
from fissura.classical.landmarks import centres, fit_error, frequencies, kernel, optimised
from fissura.classical.quantisation import stored
from fissura.classical.ridge import STRENGTHS, ridge
from fissura.classical.svm_compression import read as read_machine
from fissura.core.errors import DataError, SpecError

WHITENINGS = {
    "plain": NoWhitening(),
    "zca": ZCAWhitening(regularisation=0.1),
    "rank": ZCAWhitening(rank=6),
}
SMALL = Forest(trees=15, depth=8)
METHODS = ["prune", "fourier", "nystroem", "reduced_set"]


def problem(classes: int = 2, samples: int = 360, width: int = 24, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features (float32) of 6 hidden directions, classes by a curved rule; 4 % of wrong training labels."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(2 * samples, 6))
    value = hidden[:, 0] + 0.6 * hidden[:, 1] ** 2 + 0.3 * hidden[:, 2]
    labels = np.digitize(value, np.quantile(value, np.arange(1, classes) / classes))
    features = 4 + hidden @ rng.normal(size=(6, width)) + 0.1 * rng.normal(size=(2 * samples, width))
    wrong = rng.random(samples) < 0.04
    labels[:samples][wrong] = rng.integers(classes, size=wrong.sum())
    features = features.astype(np.float32)
    return features[:samples], labels[:samples], features[samples:], labels[samples:]


def fitted(
    classifier: AnyClassifier, classes: int = 2, whitening: AnyWhitening = WHITENINGS["plain"]
) -> tuple[Pipeline, tuple[np.ndarray, ...]]:
    data = problem(classes)
    return pipeline(whitening, classifier=classifier, seed=0).fit(*data[:2]), data


def compressed(pipe: Pipeline, data: tuple[np.ndarray, ...], compression: Compression) -> Compact:
    return compact(pipe, features=data[0], labels=data[1], compression=compression, seed=0)


class TestNothingTakenAway:
    @pytest.mark.parametrize("whitening", WHITENINGS.values(), ids=WHITENINGS.keys())
    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_a_machine_decides_as_scikit_learn_s(self, classes, whitening, tmp_path):
        pipe, data = fitted(SVM(C=5.0, gamma=2.0), classes, whitening)
        compressed(pipe, data, Compression()).save(tmp_path / "classifier.npz")
        small = Compact.load(tmp_path / "classifier.npz")
        features = np.concatenate([data[0], data[2]])
        expected = pipe.decision_function(features).reshape(len(features), -1)
        np.testing.assert_allclose(small.decision(features), expected, atol=1e-4)
        assert (small.predict(features) == pipe.predict(features)).all()

    @pytest.mark.parametrize("whitening", WHITENINGS.values(), ids=WHITENINGS.keys())
    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_a_forest_has_scikit_learn_s_probabilities(self, classes, whitening, tmp_path):
        pipe, data = fitted(SMALL, classes, whitening)
        compressed(pipe, data, Compression()).save(tmp_path / "classifier.npz")
        small = Compact.load(tmp_path / "classifier.npz")
        features = np.concatenate([data[0], data[2]])
        apart = np.abs(small.probability(features) - pipe.predict_proba(features)).max(axis=1) > 1e-6
        # whitened, a float32 sum in another order can lie on the other side of a threshold
        assert apart.sum() <= (0 if whitening.kind == "none" else 1)
        assert (small.predict(features) == pipe.predict(features))[~apart].all()

    def test_a_forest_is_equal_at_its_thresholds(self):
        pipe, data = fitted(SMALL)
        small = compressed(pipe, data, Compression())
        scale = np.float32(pipe["scaling"].scale_)
        tree = pipe["classifier"].estimators_[0].tree_
        rows = []
        for node in np.flatnonzero(tree.children_left >= 0):
            row = data[0][node % 360].copy()
            row[tree.feature[node]] = np.float32(tree.threshold[node] * scale)
            rows += [row, np.nextafter(row, np.float32(np.inf)), np.nextafter(row, np.float32(-np.inf))]
        edge = np.array(rows)
        np.testing.assert_allclose(small.probability(edge), pipe.predict_proba(edge), atol=1e-6)

    def test_a_class_that_training_lacks_is_never_predicted(self):
        features, labels, test, _ = problem(3)
        kept = labels != 1
        pipe = pipeline(NoWhitening(), classifier=SVM(), seed=0).fit(features[kept], labels[kept])
        small = compact(
            pipe,
            features=features[kept],
            labels=labels[kept],
            compression=Compression(),
            seed=0,
            classes=["none", "minor", "obvious"],
        )
        assert (small.classes, small.labels) == (("none", "obvious"), (0, 2))
        assert (small.predict(test) == pipe.predict(test)).all()

    def test_a_machine_with_a_support_vector_alone_in_its_class_is_exact(self):
        features, labels, test, _ = problem(2)
        labels = np.where(np.arange(len(labels)) == 7, 1, 0)
        pipe = pipeline(NoWhitening(), classifier=SVM(C=100.0), seed=0).fit(features, labels)
        small = compact(pipe, features=features, labels=labels, compression=Compression(), seed=0)
        np.testing.assert_allclose(small.decision(test)[:, 0], pipe.decision_function(test), atol=1e-4)


class TestMachine:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("whitening", WHITENINGS.values(), ids=WHITENINGS.keys())
    def test_of_few_bytes_is_nearly_as_right(self, method, whitening):
        pipe, data = fitted(SVM(C=5.0, gamma=1.0), whitening=whitening)
        small = compressed(pipe, data, Compression(method=method, components=128, rank=6, bits=8))
        full = compressed(pipe, data, Compression())
        assert small.nbytes < 0.85 * full.nbytes
        assert small.kind == ("fourier" if method == "fourier" else "rbf")
        right = pipe.score(data[2], data[3])
        assert right > 0.85
        assert (small.predict(data[2]) == data[3]).mean() > right - 0.02

    @pytest.mark.parametrize("method", METHODS)
    def test_of_many_classes_is_nearly_as_right(self, method):
        pipe, data = fitted(SVM(C=5.0, gamma=1.0), 4)
        small = compressed(pipe, data, Compression(method=method, components=128, rank=6, bits=8))
        assert (small.predict(data[2]) == pipe.predict(data[2])).mean() > 0.92

    @pytest.mark.parametrize("method", METHODS)
    def test_is_the_same_for_the_same_seed(self, method, tmp_path):
        pipe, data = fitted(SVM())
        for name in ("first", "second"):
            small = compressed(pipe, data, Compression(method=method, components=9))
            small.save(tmp_path / name)
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()

    @pytest.mark.parametrize(("share", "left"), [(0.0, 1.0), (0.3, 0.7), (0.5, 0.5), (0.999, 0.0)])
    def test_pruned_keeps_the_rest_of_its_vectors(self, share, left):
        pipe, data = fitted(SVM())
        small = compressed(pipe, data, Compression(method="prune", share=share))
        support = len(pipe["classifier"].support_)
        assert len(small._arrays["vectors"]) == max(1, round(left * support))

    def test_refitted_after_pruning_is_nearer_than_with_the_vectors_dropped_alone(self):
        pipe, data = fitted(SVM(C=5.0))
        classifier = pipe["classifier"]
        small = compressed(pipe, data, Compression(method="prune", share=0.5, rank=None))
        weights = classifier.dual_coef_.copy()
        # weights equal at the bound fall by chance: in the order of classes, one class would go first
        order = np.lexsort([np.random.default_rng(0).random(weights.shape[1]), np.abs(weights[0])])
        weights[0, order[: round(0.5 * len(order))]] = 0
        z = pipe[:-1].transform(data[2]).astype(float)
        support = classifier.support_vectors_
        distances = ((z[:, None] - support[None]) ** 2).sum(axis=2)
        dropped = np.exp(-classifier.gamma * distances) @ weights[0] + classifier.intercept_[0]
        wanted = pipe.decision_function(data[2])
        error = np.square(small.decision(data[2])[:, 0] - wanted).mean()
        assert error < 0.1 * np.square(dropped - wanted).mean()

    def test_of_moved_landmarks_is_nearer_than_of_the_centres_they_came_from(self):
        pipe, data = fitted(SVM(C=5.0, gamma=2.0))
        wanted = pipe.decision_function(data[2])
        still, reduced = (
            compressed(pipe, data, Compression(method=method, components=12, rank=6)).decision(data[2])[:, 0]
            for method in ("nystroem", "reduced_set")
        )
        assert np.square(reduced - wanted).mean() < 0.5 * np.square(still - wanted).mean()

    @pytest.mark.parametrize("classes", [2, 3])
    def test_keeps_the_directions_that_its_gradients_span(self, classes):
        pipe, data = fitted(SVM(C=2.0), classes, WHITENINGS["zca"])
        machine = read_machine(pipe, features=data[0])
        z = machine.coordinates(data[2][:40])
        step = 1e-5
        energy = np.zeros((z.shape[1], z.shape[1]))
        for row in z:
            shifted = np.concatenate([row + step * np.eye(len(row)), row - step * np.eye(len(row))])
            values = machine.decisions(shifted)
            slope = (values[: len(row)] - values[len(row) :]) / (2 * step)
            energy += slope @ slope.T
        leading = np.linalg.eigh(energy)[1][:, ::-1][:, :3]
        found = machine.directions(z, count=3)
        np.testing.assert_allclose(np.abs(found.T @ leading), np.eye(3), atol=1e-4)

    @pytest.mark.parametrize("method", METHODS)
    def test_of_fewer_samples_than_landmarks_is_made(self, method):
        features, labels = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0), np.repeat([0, 1, 0, 1], 5)
        pipe = pipeline(NoWhitening(), classifier=SVM(), seed=0).fit(features, labels)
        small = compact(
            pipe, features=features, labels=labels, compression=Compression(method=method), seed=0
        )
        assert (small.predict(features) == labels).all()


class TestForest:
    @pytest.mark.parametrize("whitening", WHITENINGS.values(), ids=WHITENINGS.keys())
    @pytest.mark.parametrize("classes", [2, 4])
    def test_of_8_bits_is_smaller_and_nearly_the_same(self, classes, whitening):
        pipe, data = fitted(SMALL, classes, whitening)
        full, small = (compressed(pipe, data, Compression(bits=bits)) for bits in (32, 8))
        assert small.nbytes < 0.85 * full.nbytes
        assert (small.predict(data[2]) == pipe.predict(data[2])).mean() > 0.93
        assert np.abs(small.probability(data[2]) - pipe.predict_proba(data[2])).mean() < 0.04

    @pytest.mark.parametrize("components", [4, 24, 1000])
    def test_pruned_is_nearly_as_right_on_its_strongest_features(self, components):
        pipe, data = fitted(Forest(trees=30))
        small = compressed(pipe, data, Compression(method="prune", share=0.5, components=components))
        assert (small.predict(data[2]) == data[3]).mean() > pipe.score(data[2], data[3]) - 0.05
        strongest = np.argsort(-pipe["classifier"].feature_importances_)[:components]
        assert set(small._arrays["columns"].tolist()) <= set(strongest.tolist())

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8])
    def test_loses_the_share_of_its_leaves_and_no_more_than_a_branch_beyond(self, share):
        trees = read(RandomForestClassifier(12, random_state=0).fit(*problem(3)[:2]))
        inner = trees.left >= 0
        kept = pruned(trees, inner, share=share)
        before, after = ((trees.left >= 0).sum() + 12, kept.sum() + 12)
        assert before - after >= share * before - 1
        assert before - after <= share * before + 12
        assert not (kept & ~inner).any()

    @pytest.mark.parametrize("alpha", [0.003, 0.006, 0.01, 0.03])
    def test_is_cut_as_scikit_learn_cuts_one_tree(self, alpha):
        features, labels, test, _ = problem(3)
        forest = RandomForestClassifier(1, bootstrap=False, max_features=None, random_state=0)
        forest.fit(features, labels)
        whole = forest.estimators_[0]
        cut = DecisionTreeClassifier(ccp_alpha=alpha, random_state=whole.random_state).fit(features, labels)
        share = 1 - cut.get_n_leaves() / whole.get_n_leaves()
        assert 0 < share < 1
        trees = read(forest)
        kept = pruned(trees, trees.left >= 0, share=share)
        assert kept.sum() + 1 == cut.get_n_leaves()
        node = np.zeros(len(test), int)
        for row in range(len(test)):
            while kept[node[row]]:
                right = test[row, trees.feature[node[row]]] > trees.threshold[node[row]]
                node[row] = (trees.right if right else trees.left)[node[row]]
        np.testing.assert_allclose(trees.probability[node], cut.predict_proba(test))

    def test_puts_children_in_the_order_of_their_parents(self):
        trees = read(RandomForestClassifier(3, max_depth=4, random_state=0).fit(*problem()[:2]))
        inner = trees.left >= 0
        order = level_order(trees, inner)
        assert sorted(order) == list(range(len(inner)))
        parents = [node for node in order if inner[node]]
        children = [child for node in parents for child in (trees.left[node], trees.right[node])]
        assert list(order) == [*trees.roots, *children]

    def test_that_splits_nowhere_is_an_error(self):
        features, labels = np.array([[0.0], [1.0], [0.0], [1.0]], np.float32), np.array([0, 0, 1, 1])
        pipe = pipeline(NoWhitening(), classifier=Forest(trees=2, depth=1), seed=0).fit(features, labels)
        pipe["classifier"].estimators_ = [
            DecisionTreeClassifier(min_samples_split=99).fit(features, labels) for _ in range(2)
        ]
        with pytest.raises(DataError, match="no tree splits the samples"):
            compact(pipe, features=features, labels=labels, compression=Compression(), seed=0)


class TestRefusals:
    @pytest.mark.parametrize("method", ["fourier", "nystroem", "reduced_set"])
    def test_a_kernel_s_method_for_a_forest(self, method):
        pipe, data = fitted(Forest(trees=2, depth=2))
        with pytest.raises(SpecError, match=f"no kernel, and `{method}`.*take `prune` or `none`"):
            compressed(pipe, data, Compression(method=method))
        check_method(Compression(method=method), classifier="svm")

    @pytest.mark.parametrize(
        "steps",
        [
            [("classifier", SVC())],
            [("scaling", StandardScaler()), ("classifier", SVC())],
            [("scaling", None), ("classifier", SVC(kernel="linear"))],
            [("scaling", None), ("classifier", DecisionTreeClassifier())],
            [("whitening", StandardScaler()), ("scaling", None), ("classifier", SVC())],
        ],
    )
    def test_a_pipeline_of_other_steps(self, steps):
        pipe, data = fitted(SVM())
        other = Pipeline([(name, step or pipe["scaling"]) for name, step in steps]).fit(*data[:2])
        with pytest.raises(SpecError, match="build it with `pipeline`"):
            compressed(other, data, Compression())

    def test_a_pipeline_that_is_not_fitted(self):
        data = problem()
        with pytest.raises(NotFittedError, match="not fitted yet"):
            compressed(pipeline(NoWhitening(), classifier=SVM(), seed=0), data, Compression())

    def test_features_that_are_not_those_of_the_fit(self):
        pipe, (features, labels, *_) = fitted(SVM())
        wrong = [
            (features[::-1], labels[::-1], "in the same order"),
            (features[:20], labels[:20], "in the same order"),
            (features[:, 1:], labels, r"are \[360, 23\]"),
            (features, labels[1:], r"are \[360, 24\] and \[359\]"),
            (np.where(features > 9, np.nan, features), labels, "must be finite"),
            (features, np.zeros_like(labels), "at least two classes"),
            (features, labels + 1, r"fitted on the classes \[0, 1\], these are \[1, 2\]"),
        ]
        for features, labels, message in wrong:
            with pytest.raises(DataError, match=message):
                compact(pipe, features=features, labels=labels, compression=Compression(), seed=0)

    def test_names_for_fewer_classes_than_there_are(self):
        pipe, data = fitted(SVM(), 3)
        with pytest.raises(DataError, match=r"labels \[0, 1, 2\], are \['no', 'yes'\]"):
            compact(
                pipe,
                features=data[0],
                labels=data[1],
                compression=Compression(),
                seed=0,
                classes=["no", "yes"],
            )

    @pytest.mark.parametrize(
        "fields",
        [{"share": 1.0}, {"share": -0.1}, {"components": 0}, {"rank": 0}, {"bits": 16}, {"method": "x"}],
    )
    def test_settings_out_of_range(self, fields):
        with pytest.raises(ValidationError):
            Compression(**fields)


class TestParts:
    def test_ridge_takes_the_strength_with_the_least_leave_one_out_error(self, rng):
        columns = rng.normal(size=(20, 6)) @ rng.normal(size=(6, 12))
        target = columns[:, :2] + 2 + 0.5 * rng.normal(size=(20, 2))
        largest = np.linalg.svd(columns - columns.mean(axis=0), compute_uv=False)[0] ** 2
        models = [Ridge(strength * largest, solver="svd") for strength in STRENGTHS[4:]]
        errors = [
            np.square(cross_val_predict(model, columns, target, cv=LeaveOneOut()) - target).sum()
            for model in models
        ]
        best = models[int(np.argmin(errors))].fit(columns, target)
        weights, intercept = ridge(columns, target)
        np.testing.assert_allclose(weights, best.coef_.T, atol=1e-6)
        np.testing.assert_allclose(intercept, best.intercept_, atol=1e-6)

    @pytest.mark.parametrize("columns", [np.zeros((5, 2)), np.ones((5, 1)), np.eye(5)[:, :1]])
    def test_ridge_of_columns_that_hardly_vary_is_finite(self, columns):
        weights, intercept = ridge(columns, np.arange(5.0)[:, None])
        assert np.isfinite(columns @ weights + intercept).all()

    def test_landmarks_move_along_the_exact_gradient(self, rng):
        points, target = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
        start = rng.normal(size=4 * 3 + 4 * 2 + 2)
        arguments = (points, target, 4, 1e-3)
        error = check_grad(
            lambda flat: fit_error(flat, *arguments)[0], lambda flat: fit_error(flat, *arguments)[1], start
        )
        assert error < 1e-5

    def test_moved_landmarks_fit_better(self, rng):
        points = rng.normal(size=(200, 3))
        target = np.sin(2 * points[:, :1])
        landmarks = centres(points, count=8, rng=rng)
        before = ridge(kernel(points, landmarks), target)
        after = optimised(landmarks, points=points, target=target, weights=before[0], intercept=before[1])
        fits = [
            np.square(kernel(points, at) @ weights + intercept - target).mean()
            for at, (weights, intercept) in [
                (landmarks, before),
                (after, ridge(kernel(points, after), target)),
            ]
        ]
        assert fits[1] < 0.3 * fits[0]

    def test_centres_of_few_distinct_points_are_the_points(self, rng):
        points = np.repeat(np.eye(3), 4, axis=0)
        assert sorted(centres(points, count=5, rng=rng).tolist()) == sorted(np.eye(3).tolist())

    @pytest.mark.parametrize(("rank", "count"), [(3, 30_000), (8, 20_001)])
    def test_frequencies_give_the_kernel_on_average(self, rng, rank, count):
        drawn = frequencies(count, rank=rank, rng=rng)
        assert drawn.shape == (count, rank)
        z = rng.normal(size=(10, rank)) / 2
        waves = np.concatenate([np.cos(z @ drawn.T), np.sin(z @ drawn.T)], axis=1)
        np.testing.assert_allclose(waves @ waves.T / count, kernel(z, z), atol=0.02)

    def test_int8_is_within_half_a_step_a_column(self, rng):
        array = rng.normal(size=(50, 6)) * [1e-6, 1, 1e6, 0, 3, 0.1]
        arrays, values = stored("matrix", array, bits=8)
        assert arrays["matrix"].dtype == np.int8
        np.testing.assert_array_equal(values, arrays["matrix"] * arrays["matrix_step"])
        assert (np.abs(values - array) <= np.abs(array).max(axis=0) / 127 * 0.501).all()
        assert (stored("matrix", array, bits=32)[0]["matrix"] == array.astype(np.float32)).all()


@pytest.mark.slow
@pytest.mark.parametrize("whitening", [NoWhitening(), ZCAWhitening(regularisation=1.0)], ids=["plain", "zca"])
@pytest.mark.parametrize("method", METHODS)
def test_960_features_fit_in_100_kilobytes_with_little_lost(method: str, whitening, tmp_path: Path):
    lost = []
    for seed in range(3):
        features, labels, test, expected = problem(2, samples=1_000, width=960, seed=seed)
        pipe = pipeline(whitening, classifier=SVM(C=10.0), seed=0).fit(features, labels)
        small = compact(
            pipe, features=features, labels=labels, compression=Compression(method=method, bits=8), seed=0
        )
        small.save(tmp_path / "classifier.npz")
        assert (tmp_path / "classifier.npz").stat().st_size < 30_000
        lost.append(pipe.score(test, expected) - (small.predict(test) == expected).mean())
    assert np.mean(lost) < 0.01
