"""Whitening against the literal formula, on few samples and many; the unit of distance against all pairs."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from fissura.classical.scaling import UnitDistance
from fissura.classical.zca import ZCA


def correlated(rng: np.random.Generator, samples: int, width: int) -> np.ndarray:
    return rng.normal(size=(samples, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


@parametrize_with_checks([ZCA(), ZCA(rank=2), ZCA(regularisation=0.0), UnitDistance()])
def test_is_a_scikit_learn_transformer(estimator, check):
    check(estimator)


class TestZCA:
    def test_is_the_inverse_root_of_the_regularised_covariance(self, rng):
        features, new = correlated(rng, 80, 6), correlated(rng, 5, 6)
        covariance = np.cov(features.T)
        root = sqrtm(covariance + 0.05 * np.trace(covariance) / 6 * np.eye(6)).real
        expected = (new - features.mean(axis=0)) @ np.linalg.inv(root)
        np.testing.assert_allclose(ZCA(0.05).fit(features).transform(new), expected, atol=1e-9)

    def test_without_regularisation_leaves_a_covariance_of_one(self, rng):
        whitened = ZCA(0.0).fit_transform(correlated(rng, 200, 7))
        np.testing.assert_allclose(np.cov(whitened.T), np.eye(7), atol=1e-9)

    @pytest.mark.parametrize("samples", [5, 11, 12, 13, 40])
    def test_of_few_samples_is_the_same_within_the_directions_in_which_they_vary(self, rng, samples):
        features, new = correlated(rng, samples, 12), correlated(rng, 9, 12)
        values, vectors = np.linalg.eigh(np.cov(features.T))
        order = np.argsort(values)[::-1][: min(samples - 1, 12)]
        values, vectors = values[order], vectors[:, order]
        gains = 1 / np.sqrt(values + 0.01 * values.sum() / 12)
        expected = (new - features.mean(axis=0)) @ (vectors * gains) @ vectors.T
        np.testing.assert_allclose(ZCA().fit(features).transform(new), expected, atol=1e-8)

    def test_does_not_hear_what_no_training_sample_varies_in(self, rng):
        features = np.pad(correlated(rng, 30, 4), ((0, 0), (0, 3)), constant_values=2.5)
        zca = ZCA(0.0).fit(features)
        assert zca.components_.shape == (4, 7)
        loud = features.copy()
        loud[:, 4:] += 1e6
        np.testing.assert_array_equal(zca.transform(loud)[:, :4], zca.transform(features)[:, :4])
        assert not zca.transform(loud)[:, 4:].any()

    @pytest.mark.parametrize(("rank", "kept"), [(None, 9), (3, 3), (9, 9), (500, 9)])
    def test_keeps_the_rank_asked_for_or_all_there_is(self, rng, rank, kept):
        assert ZCA(rank=rank).fit(correlated(rng, 10, 20)).components_.shape == (kept, 20)

    @pytest.mark.parametrize("rank", [None, 3])
    def test_has_the_distances_of_its_components(self, rng, rank):
        features = correlated(rng, 30, 8)
        zca = ZCA(rank=rank).fit(features)
        coordinates = (features - zca.mean_) @ zca.components_.T
        whitened = zca.transform(features)
        np.testing.assert_allclose(cdist(whitened, whitened), cdist(coordinates, coordinates), atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(zca.components_, axis=1), zca.gains_)

    def test_keeps_float32(self, rng):
        features = correlated(rng, 60, 5).astype(np.float32)
        zca = ZCA().fit(features)
        whitened = zca.transform(features)
        assert whitened.dtype == zca.components_.dtype == zca.mean_.dtype == np.float32
        exact = ZCA().fit_transform(features.astype(np.float64))
        np.testing.assert_allclose(whitened, exact, atol=1e-3)

    def test_is_learnt_from_the_training_samples_alone(self, rng):
        features = correlated(rng, 40, 5)
        zca = ZCA().fit(features[:30])
        np.testing.assert_array_equal(zca.transform(features)[:30], zca.transform(features[:30]))

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            (np.ones((1, 3)), "minimum of 2 is required"),
            (np.full((5, 3), 0.1), "all 3 are constant over the 5 samples"),
            (np.array([[0.0, np.nan], [1.0, 2.0]]), "NaN"),
            (np.array([[0.0, np.inf], [1.0, 2.0]]), "infinity"),
        ],
        ids=["one sample", "constant", "NaN", "infinite"],
    )
    def test_says_what_it_cannot_whiten(self, features, message):
        with pytest.raises(ValueError, match=message):
            ZCA().fit(features)

    @pytest.mark.parametrize(
        ("zca", "message"),
        [
            (ZCA(-1.0), "regularisation: at least 0, is -1"),
            (ZCA(float("nan")), "regularisation: at least 0, is nan"),
            (ZCA(rank=0), "rank: at least 1, is 0"),
        ],
    )
    def test_says_which_setting_is_out_of_range(self, rng, zca, message):
        with pytest.raises(ValueError, match=message):
            zca.fit(correlated(rng, 9, 3))


class TestUnitDistance:
    @pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
    def test_makes_the_mean_squared_distance_one(self, rng, factor):
        features = factor * correlated(rng, 50, 6)
        scaled = UnitDistance().fit_transform(features)
        assert (cdist(scaled, scaled) ** 2).mean() == pytest.approx(1)
        assert scaled * UnitDistance().fit(features).scale_ == pytest.approx(features)

    def test_keeps_float32(self, rng):
        assert UnitDistance().fit_transform(correlated(rng, 9, 3).astype(np.float32)).dtype == np.float32

    def test_follows_whitening(self, rng):
        scaled = make_pipeline(ZCA(), UnitDistance()).fit_transform(correlated(rng, 12, 30))
        assert (cdist(scaled, scaled) ** 2).mean() == pytest.approx(1)

    @pytest.mark.parametrize(
        ("features", "message"),
        [(np.ones((1, 3)), "minimum of 2"), (np.full((9, 3), 0.1), "all 3 are constant over the 9 samples")],
    )
    def test_says_what_it_cannot_scale(self, features, message):
        with pytest.raises(ValueError, match=message):
            UnitDistance().fit(features)
