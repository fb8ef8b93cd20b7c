"""Intervals cover, differences are paired, groups hold what cannot be told apart; literal loops agree."""

from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fissura.metrics import Counts, rates
from fissura.reports.crack_scores import (
    ALARMS,
    FALSE_ALARMS,
    FEATURES,
    MEANS,
    STATISTICS,
    crack_scores,
    resting_on_one,
)
from fissura.reports.sheet import score_entry
from fissura.reports.statistics import (
    NO_INTERVAL,
    Bootstrapped,
    Difference,
    Interval,
    bootstrap,
    difference,
    draw,
    groups,
    holm,
    ranks,
)


def scored(rng: np.random.Generator, *, seeds: int = 1, images: int = 30, skill: float = 0.8) -> np.ndarray:
    """Features [seed, image, feature] of images of unlike difficulty, the counts being exact pixels; each
    holds a crack."""
    hard = rng.random(images)
    labelled = rng.integers(50, 400, images)
    found = rng.binomial(labelled, np.clip(skill - 0.3 * hard, 0.01, 0.99), (seeds, images))
    wrong = rng.poisson(30 + 60 * hard, (seeds, images))
    missed = labelled - found
    precision, recall = found / (found + wrong), found / labelled
    f1 = 2 * found / (2 * found + wrong + missed)
    none = [np.zeros(found.shape)] * len(ALARMS)
    own = [found, wrong, found, missed, precision, recall, f1, f1, f1 / (2 - f1), *none]
    return np.stack(own, axis=-1).astype(float)


def bootstrapped(features: np.ndarray, *, draws: np.ndarray, seed: int) -> dict[str, Bootstrapped]:
    """The scores of segmentations."""
    score = partial(crack_scores, images=features.shape[1])
    alone = resting_on_one(features)
    return bootstrap(features, draws=draws, seed=seed, score=score, alone=alone)


def literal_micro_f1(images: np.ndarray) -> float:
    """F1 of the counts summed over images, as written in the evaluation protocol."""
    true_positive = false_positive = found = missed = 0
    for image in images:
        true_positive += int(image[0])
        false_positive += int(image[1])
        found += int(image[2])
        missed += int(image[3])
    precision = true_positive / (true_positive + false_positive)
    recall = found / (found + missed)
    return 2 * precision * recall / (precision + recall)


def test_each_row_of_draws_is_one_draw_with_replacement():
    table = draw(7, seed=3, replicates=5_000)
    assert table.shape == (5_000, 7)
    assert (table.sum(axis=1) == 7).all()
    # Each image is drawn binomially: mean 1, variance 1 - 1/n.
    assert table.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert table.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.08)
    assert (draw(7, seed=3, replicates=5_000) == table).all()
    assert (draw(7, seed=4, replicates=5_000) != table).any()


def test_blocks_of_draws_make_no_difference_to_their_law(monkeypatch):
    monkeypatch.setattr("fissura.reports.statistics.BLOCK", 50)
    table = draw(7, seed=3, replicates=501)
    assert (table.sum(axis=1) == 7).all()
    assert table.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)


def test_replicates_equal_a_literal_loop_over_images(rng):
    features = scored(rng)
    draws = draw(30, seed=1, replicates=200)
    result = bootstrapped(features, draws=draws, seed=0)
    for row, times in enumerate(draws):
        images = np.repeat(features[0], times, axis=0)
        assert result["f1"].replicates[row] == pytest.approx(literal_micro_f1(images))
        assert result["macro_f1"].replicates[row] == pytest.approx(images[:, FEATURES.index("f1")].mean())
    assert result["f1"].value == pytest.approx(literal_micro_f1(features[0]))


def test_seeds_share_the_images_that_are_drawn(rng):
    features = scored(rng, seeds=3)
    draws = draw(30, seed=1, replicates=100)
    result = bootstrapped(features, draws=draws, seed=7)["f1"]
    seeds_drawn = draw(3, seed=7, replicates=100)
    for row in range(100):
        values = [
            literal_micro_f1(np.repeat(features[seed], draws[row], axis=0))
            for seed, times in enumerate(seeds_drawn[row])
            for _ in range(times)
        ]
        assert result.replicates[row] == pytest.approx(np.mean(values))
    assert result.value == pytest.approx(np.mean([literal_micro_f1(one) for one in features]))


def test_intervals_are_scipys(rng):
    features = scored(rng, images=60)
    result = bootstrapped(features, draws=draw(60, seed=1), seed=0)

    def micro(*columns, axis):
        means = np.stack([column.mean(axis=axis) for column in columns], axis=-1)
        return STATISTICS["f1"](means)

    pooled = scipy.stats.bootstrap(
        tuple(features[0, :, :4].T), micro, paired=True, vectorized=True, method="percentile",
        n_resamples=10_000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    mean = scipy.stats.bootstrap(
        (features[0, :, 6],), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5)
    ).confidence_interval
    for name, theirs in (("f1", pooled), ("macro_f1", mean)):
        ours = result[name].interval()
        width = theirs.high - theirs.low
        assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
        assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_95_percent_intervals_cover_95_times_in_100(rng):
    truth, inside, trials = 2 / (2 + 5), 0, 400
    for trial in range(trials):
        features = np.zeros((1, 50, len(FEATURES)))
        features[0, :, 6] = rng.beta(2, 5, 50)
        features[0, :, :4] = 1
        interval = bootstrapped(features, draws=draw(50, seed=trial, replicates=1_000), seed=0)[
            "macro_f1"
        ].interval()
        inside += interval.low <= truth <= interval.high
    assert 0.92 <= inside / trials <= 0.97


@given(arrays.arrays(np.int64, (4, 256), elements=st.integers(0, 5)))
def test_micro_scores_follow_the_rules_of_the_metrics(counts):
    theirs = rates(Counts(*counts))
    sums = counts.T.astype(float)
    assert STATISTICS["precision"](sums) == pytest.approx(theirs.precision)
    assert STATISTICS["recall"](sums) == pytest.approx(theirs.recall)
    assert STATISTICS["f1"](sums) == pytest.approx(theirs.f1)


def test_what_a_protocol_lacks_has_no_interval(rng):
    features = scored(rng)
    features[..., FEATURES.index("dice")] = np.nan
    result = bootstrapped(features, draws=draw(30, seed=0, replicates=100), seed=0)
    assert "dice" not in result
    assert "iou" in result


def test_the_difference_is_paired(rng):
    features = scored(rng, images=40)
    slightly_better = features.copy()
    slightly_better[..., 6] += 0.01 + rng.normal(0, 0.005, 40)
    draws = draw(40, seed=1)
    better, base = (bootstrapped(one, draws=draws, seed=0)["macro_f1"] for one in (slightly_better, features))
    # The intervals overlap by far; image by image there is no doubt.
    assert better.interval().low < base.interval().high
    gap = difference(better, base)
    assert gap.low > 0
    assert gap.value == pytest.approx(0.01, abs=0.003)
    assert gap.p == pytest.approx(2 / 10_001)
    assert difference(base, better).p == gap.p


def test_a_difference_from_itself_is_none(rng):
    one = bootstrapped(scored(rng), draws=draw(30, seed=1), seed=0)["f1"]
    gap = difference(one, one)
    assert (gap.value, gap.low, gap.high, gap.p) == (0, 0, 0, 1)


def test_where_nothing_differs_5_tests_in_100_say_it_does(rng):
    false, trials = 0, 400
    for trial in range(trials):
        both = np.zeros((2, 1, 40, len(FEATURES)))
        both[..., :4] = 1
        both[..., 6] = rng.normal(0.7, 0.1, (2, 1, 40))
        draws = draw(40, seed=trial, replicates=1_000)
        first, second = (bootstrapped(one, draws=draws, seed=0)["macro_f1"] for one in both)
        false += difference(first, second).p < 0.05
    assert 0.02 <= false / trials <= 0.09


def test_holm_is_holms():
    # By hand: sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, then made monotone.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def sure(value: float, spread: float, rng: np.random.Generator) -> Bootstrapped:
    return Bootstrapped(value, rng.normal(value, spread, 2_000))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], []),
        ([0.9], [1]),
        ([0.9, 0.9, 0.8], [1, 1, 3]),
        ([0.9, 0.8, 0.8, 0.8, 0.7, 0.7], [1, 2, 2, 2, 5, 5]),
        ([0.1 + 0.2, 0.3], [1, 1]),
        ([0.9, 0.9 - 1e-9], [1, 2]),
        ([0.0, 0.0], [1, 1]),
    ],
)
def test_exact_ties_share_a_rank_and_leave_out_those_they_take_up(scores, expected):
    assert ranks(scores) == expected


def test_groups_hold_what_does_not_differ_from_their_best(rng):
    ranked = [sure(value, 0.01, rng) for value in (0.80, 0.79, 0.60, 0.59, 0.30)]
    assert groups(ranked) == ["a", "a", "b", "b", "c"]
    assert groups(ranked[:1]) == ["a"]
    assert groups([]) == []


def test_a_row_that_spreads_more_may_tie_with_the_best_from_below(rng):
    ranked = [sure(0.80, 0.005, rng), sure(0.75, 0.005, rng), sure(0.74, 0.1, rng)]
    assert groups(ranked) == ["a", "b", "a"]


def test_letters_go_on_after_z(rng):
    ranked = [sure(1 - 0.01 * place, 1e-5, rng) for place in range(28)]
    assert groups(ranked)[24:] == ["y", "z", "aa", "ab"]


def without_crack(features: np.ndarray, alarms: list[tuple[int, int, int]]) -> np.ndarray:
    """The features, and beside them those of images without a crack: components, pixels, area."""
    free = np.zeros((len(features), len(alarms), len(FEATURES)))
    for image, (components, pixels, area) in enumerate(alarms):
        free[:, image, FEATURES.index("false_positive")] = pixels
        free[:, image, [FEATURES.index(name) for name in MEANS]] = float(pixels == 0)
        free[:, image, [FEATURES.index(name) for name in ALARMS]] = (1, components, pixels, area)
    return np.concatenate([features, free], axis=1)


def test_images_without_a_crack_alone_have_false_alarms_and_no_other_score():
    features = without_crack(np.zeros((1, 0, len(FEATURES))), [(2, 10, 400_000), (0, 0, 600_000)])
    result = bootstrapped(features, draws=draw(2, seed=0), seed=0)
    assert set(result) == set(FALSE_ALARMS)
    assert {name: one.value for name, one in result.items()} == {
        "false_alarms_per_image": 1,
        "false_alarms_per_megapixel": 2,
        "false_pixels_per_image": 5,
        "false_pixels_per_megapixel": 10,
    }
    # both images, the first twice, the second twice
    assert result["false_alarms_per_megapixel"].interval() == Interval(2, 0, 5)


def test_one_image_has_scores_without_an_interval_and_differs_from_nothing(rng):
    good, bad = (bootstrapped(scored(rng, images=1), draws=draw(1, seed=0), seed=0) for _ in range(2))
    assert {score.interval().ends for score in good.values()} == {None}
    assert good["f1"].interval().span("{:.3f}".format) == NO_INTERVAL
    gap = difference(good["f1"], bad["f1"])
    assert gap.value != 0
    assert (gap.ends, gap.p) == (None, 1)
    assert groups([good["f1"], bad["f1"]]) == ["a", "a"]


def test_the_false_alarms_of_one_image_without_a_crack_have_no_interval(rng):
    features = without_crack(scored(rng, images=5), [(2, 10, 400_000)])
    result = bootstrapped(features, draws=draw(6, seed=0), seed=0)
    assert {result[name].interval().ends for name in FALSE_ALARMS} == {None}
    assert result["f1"].interval().ends


def test_a_replicate_without_a_crack_is_no_perfect_f1(rng):
    features = without_crack(scored(rng, images=2), [(0, 0, 1000)] * 20)
    draws = draw(22, seed=0)
    f1, plain = (bootstrapped(own, draws=table, seed=0)["f1"] for own, table in (
        (features, draws), (features[:, :2], draws[:, :2][draws[:, :2].any(axis=1)])
    ))  # fmt: skip
    empty = ~draws[:, :2].any(axis=1)
    assert 0.05 < empty.mean() < 0.3
    assert np.isnan(f1.replicates[empty]).all()
    assert f1.interval().high < 1
    # images without a crack and without an alarm say nothing of F1
    assert f1.value == plain.value
    assert f1.interval() == plain.interval()
    assert difference(f1, f1).p == 1


def test_images_that_all_hold_a_crack_have_no_rate_of_false_alarms(rng):
    assert not set(FALSE_ALARMS) & set(bootstrapped(scored(rng), draws=draw(30, seed=0), seed=0))


def test_a_change_is_shown_with_its_sign_its_interval_and_its_p_value() -> None:
    cell = score_entry(Difference(0.02, -0.01, 0.05, 0.31))
    assert (cell.text, cell.detail) == ("+0.020", "-0.010 to +0.050, p 0.310")
    cell = score_entry(Interval(0.9, 0.8, 0.95))
    assert (cell.text, cell.detail) == ("0.900", "0.800–0.950")
