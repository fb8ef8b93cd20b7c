"""From counts to scores: by hand, by scikit-learn, and where something is empty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, precision_recall_curve

from fissura.metrics import (
    Flexible,
    Overlap,
    Pixel,
    Scores,
    average_precision,
    best_threshold,
    crack_pixels,
    level_of,
    mean,
    pool,
    rates,
    sweep,
)
from fissura.metrics.counts import at_or_above
from fissura.metrics.dilation import dilate, disk, square
from fissura.metrics.false_alarms import FalseAlarm, false_alarm, summarise

EMPTY = np.zeros((4, 4), np.uint8)
DOT = np.pad(np.full((1, 1), 1, np.uint8), ((1, 2), (1, 2)))


def random_pair(rng, *, lowest=0):
    mask = (rng.random((40, 50)) < 0.1).astype(np.uint8)
    probability = np.clip(rng.normal(90 + 60 * mask, 50), lowest, 255).astype(np.uint8)
    return probability, mask


@pytest.mark.parametrize("size", [0, 1, 9_999, 10_000, 40_000])
def test_counting_values_at_or_above_each_level(size, rng):
    values = rng.integers(0, 256, size, dtype=np.uint8)
    np.testing.assert_array_equal(at_or_above(values), [(values >= k).sum() for k in range(256)])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 12), (30, 20)])
@pytest.mark.parametrize("distance", [0, 1, 2, 3, 8, 40])
def test_dilation_is_scipy_s(shape, distance, rng):
    values = rng.integers(0, 256, shape, dtype=np.uint8)
    y, x = np.mgrid[-distance : distance + 1, -distance : distance + 1]
    for half_widths, footprint in ((disk(distance), y**2 + x**2 <= distance**2), (square(distance), y == y)):
        expected = ndimage.grey_dilation(values, footprint=footprint, mode="constant")
        np.testing.assert_array_equal(dilate(values, half_widths), expected)


@given(st.floats(0, 12))
def test_a_disk_is_the_pixels_at_most_so_far_away(distance):
    expected = [
        max(dx for dx in range(13) if np.hypot(dx, dy) <= distance) for dy in range(int(distance) + 1)
    ]
    assert disk(distance) == expected


@given(st.floats(0, 1) | st.integers(0, 255).map(lambda level: level / 255))
def test_the_level_of_a_threshold_predicts_the_same_pixels(threshold):
    values = np.arange(256)
    np.testing.assert_array_equal(values >= level_of(threshold), values / 255 >= threshold)


@pytest.mark.parametrize(("threshold", "level"), [(0, 0), (1e-9, 1), (0.2, 51), (0.5, 128), (1, 255)])
def test_levels_by_hand(threshold, level):
    assert level_of(threshold) == level


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="0 to 1"):
        level_of(threshold)


def test_the_curve_is_scikit_learn_s(rng):
    probability, mask = random_pair(rng)
    at = rates(Pixel().count(probability, mask))
    precision, recall, thresholds = precision_recall_curve(mask.ravel(), probability.ravel())
    np.testing.assert_allclose(at.precision[thresholds], precision[:-1])
    np.testing.assert_allclose(at.recall[thresholds], recall[:-1])


def test_average_precision_is_scikit_learn_s(rng):
    probability, mask = random_pair(
        rng, lowest=1
    )  # scikit-learn's curve goes on to 0; this one ends at 1/255
    expected = average_precision_score(mask.ravel(), probability.ravel())
    assert average_precision(Pixel().count(probability, mask)) == pytest.approx(expected)


@pytest.mark.parametrize("level", [1, 100, 140, 200])
def test_f1_dice_and_iou_are_scikit_learn_s(level, rng):
    probability, mask = random_pair(rng)
    scores = Overlap().score(Overlap().count(probability, mask), level)
    predicted = (probability >= level).ravel()
    assert scores.f1 == scores.dice == pytest.approx(f1_score(mask.ravel(), predicted))
    assert scores.iou == pytest.approx(jaccard_score(mask.ravel(), predicted))


@pytest.mark.parametrize("protocol", [Overlap(), Flexible()], ids=str)
@pytest.mark.parametrize(
    ("map_", "mask", "expected"),
    [(EMPTY, EMPTY, 1.0), (EMPTY, DOT, 0.0), (255 * DOT, EMPTY, 0.0), (255 * DOT, DOT, 1.0)],
    ids=["both empty", "nothing predicted", "nothing labelled", "neither empty"],
)
def test_what_is_empty_scores_0_or_1(protocol, map_, mask, expected):
    counts = protocol.count(map_, mask)
    for one in (counts, pool([counts, counts])):
        scores = protocol.score(one, 128)
        assert {scores.precision, scores.recall, scores.f1} == {expected}
        if isinstance(protocol, Overlap):
            assert scores.dice == scores.iou == expected
    report = sweep([counts])
    assert (report.ods.f1, report.ois_mean, report.average_precision) == (expected,) * 3


def test_a_prediction_beside_the_crack_scores_0():
    scores = Overlap().score(Overlap().count(np.roll(DOT, 1) * np.uint8(255), DOT), 128)
    assert scores == Scores(0.0, 0.0, 0.0, 0.0, 0.0)


def test_pooled_and_mean_scores_by_hand():
    whole = Pixel().count(np.full((1, 4), 255, np.uint8), np.array([[1, 1, 1, 0]], np.uint8))
    nothing = Pixel().count(np.zeros((1, 4), np.uint8), np.array([[1, 0, 0, 0]], np.uint8))
    assert Pixel().score(pool([whole, nothing]), 128).f1 == pytest.approx(3 / 4)
    macro = mean([Pixel().score(whole, 128), Pixel().score(nothing, 128)])
    assert (macro.precision, macro.recall) == (3 / 8, 1 / 2)
    assert macro.f1 == pytest.approx((6 / 7 + 0) / 2)  # the mean of F1, not F1 of the means


def test_dice_belongs_to_exact_pixels_alone():
    counts = Flexible().count(EMPTY, DOT)
    assert Flexible().score(counts, 128).dice is None
    assert mean([Flexible().score(counts, 128)]).iou is None


def test_the_best_threshold_is_the_lowest_of_a_tie():
    counts = Pixel().count(np.array([[0, 50, 200]], np.uint8), np.array([[0, 0, 1]], np.uint8))
    assert best_threshold(counts) == 51 / 255  # F1 is 1 from 51 to 200
    assert level_of(best_threshold(counts)) == 51


def test_level_0_is_no_candidate_for_the_best_threshold():
    counts = Pixel().count(np.zeros((1, 3), np.uint8), np.ones((1, 3), np.uint8))
    assert best_threshold(counts) == 1 / 255  # F1 is 1 at level 0, and 0 above


def test_the_sweep_is_a_literal_loop(rng):
    protocol = Flexible(distance=1)
    pairs = [random_pair(rng) for _ in range(4)]
    counts = [protocol.count(*pair) for pair in pairs]

    def literal(ones, level):
        wide = [ndimage.binary_dilation(mask, np.ones((3, 3))) for _, mask in ones]
        hits = sum((w & (p >= level)).sum() for w, (p, _) in zip(wide, ones, strict=True))
        alarms = sum((~w & (p >= level)).sum() for w, (p, _) in zip(wide, ones, strict=True))
        missed = sum((m & (p < level)).sum() for p, m in ones)
        precision, recall = (hits / (hits + alarms) if hits + alarms else 0), hits / (hits + missed)
        return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0

    pooled = [literal(pairs, level) for level in range(1, 256)]
    best = max(range(255), key=lambda k: (pooled[k][2], -k))
    area = sum(
        (recall - below) * precision
        for (precision, recall, _), (_, below, _) in zip(
            pooled[::-1], [(0, 0, 0), *pooled[::-1]], strict=False
        )
    )
    each = [max(literal([pair], level)[2] for level in range(1, 256)) for pair in pairs]
    assert sweep(counts).plain() == {
        "ods": {
            "precision": pytest.approx(pooled[best][0]),
            "recall": pytest.approx(pooled[best][1]),
            "f1": pytest.approx(pooled[best][2]),
            "threshold": (best + 1) / 255,
        },
        "ois": {
            "mean": pytest.approx(sum(each) / 4),
            "sd": pytest.approx((sum((f1 - sum(each) / 4) ** 2 for f1 in each) / 4) ** 0.5),
        },
        "ap": pytest.approx(area),
    }


@pytest.mark.parametrize("valid", [None, DOT])
def test_crack_pixels_are_counted_among_the_valid_ones(valid):
    assert crack_pixels(np.full((4, 4), 255, np.uint8), valid) == (16 if valid is None else 1)


def test_false_alarms_are_counted_as_pixels_and_as_8_connected_components(rng):
    probability = rng.integers(0, 256, (30, 40), dtype=np.uint8)
    alarm = false_alarm(probability, level=200)
    assert alarm == FalseAlarm(
        (probability >= 200).sum(), label(probability >= 200, connectivity=2).max(), 1200
    )
    valid = np.zeros((30, 40), np.uint8)
    valid[:3, :3] = 255
    assert false_alarm(np.full((30, 40), 255, np.uint8), valid, level=200) == FalseAlarm(9, 1, 9)


def test_false_alarms_are_summed_per_image_and_per_megapixel():
    assert summarise([FalseAlarm(10, 2, 400_000), FalseAlarm(0, 0, 600_000)]) == {
        "images": 2,
        "pixels_per_image": 5.0,
        "components_per_image": 1.0,
        "pixels_per_megapixel": 10.0,
        "components_per_megapixel": 2.0,
    }
