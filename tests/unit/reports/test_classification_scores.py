"""Classification scores are scikit-learn's, their intervals cover, and tables come from what runs wrote."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from fissura.cli.board import board_text
from fissura.core.errors import DataError
from fissura.core.spec import digest
from fissura.metrics.classification import class_rates, class_scores, confusion, roc_auc
from fissura.records import class_store
from fissura.records.class_store import ClassifiedImage, ClassifierFacts, read_classes, write_classes
from fissura.records.manifest import DataFacts, Manifest
from fissura.reports.class_draws import rates_of, resting_on_one
from fissura.reports.class_gallery import class_gallery, margins
from fissura.reports.classification import class_table
from fissura.reports.classification_export import as_text, found, sections, write_classification
from fissura.reports.interference import interference_table
from fissura.reports.interference_export import as_text as text_of
from fissura.reports.interference_export import found as found_of
from fissura.reports.statistics import Bootstrapped, Interval, bootstrap, difference, draw
from fissura.tasks.classification.leaderboard import ClassLeaderboard

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FACTS = ClassifierFacts(classes=("sound", "cracked"), classifier_bytes=92_000, classifier_microseconds=41.25)


@st.composite
def classified(draw_: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """A number of classes, labels and predictions."""
    classes = draw_(st.integers(2, 4))
    pairs = draw_(
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=30)
    )
    labels, predictions = np.array(pairs).T
    return classes, labels, predictions


class TestScores:
    @given(classified())
    def test_the_confusion_matrix_is_scikit_learns(self, case):
        classes, labels, predictions = case
        expected = theirs.confusion_matrix(labels, predictions, labels=range(classes))
        assert (confusion(labels, predictions, classes) == expected).all()

    @given(classified())
    def test_precision_recall_and_f1_are_scikit_learns(self, case):
        classes, labels, predictions = case
        ours = class_scores(labels, predictions, classes=classes)
        each = theirs.precision_recall_fscore_support(
            labels, predictions, labels=range(classes), zero_division=0
        )[:3]
        present = np.isin(np.arange(classes), [*labels, *predictions])
        for own, other in zip((ours.class_precision, ours.class_recall, ours.class_f1), each, strict=True):
            # a class that is nowhere: 1 here, 0 there
            assert own == pytest.approx(np.where(present, other, 1.0))
        if classes == 2:
            assert (ours.precision, ours.recall, ours.f1) == tuple(
                one[1] for one in (ours.class_precision, ours.class_recall, ours.class_f1)
            )
        else:
            macro = theirs.precision_recall_fscore_support(
                labels, predictions, average="macro", zero_division=0
            )[:3]
            assert (ours.precision, ours.recall, ours.f1) == pytest.approx(macro)
        assert ours.accuracy == pytest.approx(theirs.accuracy_score(labels, predictions))

    @given(classified())
    def test_alarms_are_above_the_lowest_level(self, case):
        classes, labels, predictions = case
        ours = class_scores(labels, predictions, classes=classes)
        sound, cracked = predictions[labels == 0], predictions[labels > 0]
        assert ours.false_alarm_rate == (pytest.approx((sound > 0).mean()) if len(sound) else None)
        assert ours.missed_alarm_rate == (pytest.approx((cracked == 0).mean()) if len(cracked) else None)

    @given(
        st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=25)
    )
    def test_the_weighted_area_is_scikit_learns_ties_and_all(self, images):
        labels, decisions, weights = np.array(images).T
        ours = roc_auc(labels, decisions.astype(float), weights=np.stack([weights, np.ones_like(weights)]))
        for area, own in zip(ours, (weights, np.ones_like(weights)), strict=True):
            kept = own > 0
            if len(set(labels[kept])) < 2:
                assert np.isnan(area)
            else:
                expected = theirs.roc_auc_score(labels[kept], decisions[kept], sample_weight=own[kept])
                assert area == pytest.approx(expected)

    def test_nothing_to_find_and_nothing_found_is_right(self):
        scores = class_scores(np.zeros(4, int), np.zeros(4, int), classes=2)
        assert (scores.precision, scores.recall, scores.f1, scores.accuracy) == (1, 1, 1, 1)
        assert (scores.false_alarm_rate, scores.missed_alarm_rate, scores.roc_auc) == (0, None, None)

    def test_nothing_predicted_scores_nothing(self):
        scores = class_scores(np.array([0, 1]), np.zeros(2, int), classes=2)
        assert (scores.precision, scores.recall, scores.f1, scores.missed_alarm_rate) == (0, 0, 0, 1)

    def test_no_image_at_all_has_no_accuracy(self):
        scores = class_scores(np.zeros(0, int), np.zeros(0, int), classes=2, decisions=np.zeros((0, 1)))
        assert (scores.accuracy, scores.roc_auc) == (None, None)

    def test_many_matrices_are_scored_as_one_each(self, rng):
        matrices = rng.integers(0, 9, (5, 2, 3, 3))
        whole = class_rates(matrices)
        for place in np.ndindex(5, 2):
            one = class_rates(matrices[place])
            assert whole.f1[place] == pytest.approx(one.f1)
            assert whole.class_recall[place] == pytest.approx(one.class_recall)

    @pytest.mark.parametrize(
        ("labels", "predictions", "classes", "rule"),
        [
            ([0, 2], [0, 1], 2, "labels are 0 to 1, not 2"),
            ([0, 1], [0, -1], 2, "predictions are 0 to 1, not -1"),
            ([0, 1], [0], 2, r"one value an image, not \[2\] and \[1\]"),
            ([0, 0], [0, 0], 1, "at least two classes, not 1"),
        ],
    )
    def test_what_are_no_classes_is_refused(self, labels, predictions, classes, rule):
        with pytest.raises(DataError, match=rule):
            confusion(np.array(labels), np.array(predictions), classes)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_decision_that_is_no_number_is_refused(self, value):
        with pytest.raises(DataError, match="decision values are finite, 1 of 2 are not"):
            class_scores(np.array([0, 1]), np.array([0, 1]), classes=2, decisions=np.array([[0.5], [value]]))


def simulated(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group, label and prediction of images; those of a group are alike in difficulty. The true F1 is 3/4."""
    group = np.repeat(np.arange(groups), rng.integers(1, 6, groups))
    labels = rng.integers(0, 2, len(group))
    right = rng.random(len(group)) < rng.beta(1.5, 0.5, groups)[group]
    return group, labels, np.where(right, labels, 1 - labels)


def counts_of(group: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """The confusion matrix of each group in a row, one seed."""
    each = [confusion(labels[group == g], predictions[group == g], 2) for g in np.unique(group)]
    return np.array(each, dtype=float).reshape(1, len(each), 4)


def resampled(counts: np.ndarray, *, draws: np.ndarray, seed: int) -> dict[str, Bootstrapped]:
    """The scores of two classes."""
    score, alone = partial(rates_of, classes=2), resting_on_one(counts, classes=2)
    return bootstrap(counts, draws=draws, seed=seed, score=score, alone=alone)


class TestIntervals:
    def test_replicates_equal_a_literal_loop_over_groups(self, rng):
        group, labels, predictions = simulated(rng, 12)
        draws = draw(12, seed=1, replicates=100)
        scores = resampled(counts_of(group, labels, predictions), draws=draws, seed=0)
        for row, times in enumerate(draws):
            drawn = np.repeat(np.arange(len(group)), times[group])
            expected = theirs.f1_score(labels[drawn], predictions[drawn])
            assert scores["f1"].replicates[row] == pytest.approx(expected)
            lowest = theirs.recall_score(labels[drawn], predictions[drawn], pos_label=0)
            assert scores["class_recall/0"].replicates[row] == pytest.approx(lowest)

    def test_95_percent_intervals_over_groups_cover_95_times_in_100_and_those_over_images_do_not(self, rng):
        inside = {"groups": 0, "images": 0}
        trials = 300
        for trial in range(trials):
            group, labels, predictions = simulated(rng, 60)
            for unit, own in (("groups", group), ("images", np.arange(len(group)))):
                counts = counts_of(own, labels, predictions)
                draws = draw(counts.shape[1], seed=trial, replicates=1_000)
                score = resampled(counts, draws=draws, seed=0)["f1"].interval()
                inside[unit] += score.low <= 0.75 <= score.high
        assert 0.92 <= inside["groups"] / trials <= 0.98
        assert inside["images"] / trials < inside["groups"] / trials - 0.03

    def test_what_a_draw_leaves_undefined_is_left_out(self):
        counts = np.array([[[0, 1, 0, 0], [0, 0, 1, 3], [0, 1, 0, 2]]], dtype=float)
        scores = resampled(counts, draws=draw(3, seed=0, replicates=1_000), seed=0)
        alarms = scores["false_alarm_rate"]
        # The two groups with a sound image are missing from (1/3)^3 of the draws.
        assert np.isnan(alarms.replicates).mean() == pytest.approx(1 / 27, abs=0.02)
        assert alarms.interval() == Interval(1, 1, 1)

    def test_one_group_says_nothing_of_the_spread_between_groups(self):
        counts = np.array([[[0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 2]]], dtype=float)
        scores = resampled(counts, draws=draw(3, seed=0, replicates=1_000), seed=0)
        # of the only group with a sound image
        assert scores["false_alarm_rate"].interval() == Interval(1, None, None)

    def test_a_difference_of_models_that_err_alike_is_surer_than_either(self, rng):
        group, labels, predictions = simulated(rng, 80)
        better = predictions.copy()
        better[::12] = labels[::12]
        draws = draw(80, seed=0)
        first, second = (
            resampled(counts_of(group, labels, own), draws=draws, seed=0)["f1"]
            for own in (better, predictions)
        )
        gap, own = difference(first, second), first.interval()
        assert gap.value == pytest.approx(
            theirs.f1_score(labels, better) - theirs.f1_score(labels, predictions)
        )
        assert 0 < gap.low < gap.value < gap.high
        assert gap.high - gap.low < (own.high - own.low) / 2
        assert gap.p < 0.01


def write(
    directory: Path,
    *,
    errors: dict[str, float],
    gamma: float = 1.0,
    seed: int = 0,
    groups: int = 40,
    finished: datetime = NOON,
    facts: ClassifierFacts = FACTS,
    left_out: int = 0,
    decision: float | None = None,
    only: int | None = None,
) -> Path:
    """Writes the run of one configuration that is wrong with the given chance under each condition; `only` is
    the one class of all its images."""
    plain = {"name": "cnn_svm", "seed": seed, "classifier": {"kind": "svm", "gamma": gamma}}
    configuration = digest({key: value for key, value in plain.items() if key != "seed"})
    rows = []
    for condition, chance in errors.items():
        random = np.random.default_rng([seed, len(condition)])
        for group in range(groups):
            for image in range(1 + group % 3):
                label = (group + image) % len(facts.classes) if only is None else only
                wrong = random.random() < chance
                guess = (label + 1) % len(facts.classes) if wrong else label
                rows.append(
                    ClassifiedImage(
                        run_id=directory.name,
                        recipe="cnn_svm",
                        configuration=configuration,
                        seed=seed,
                        dataset="metu2000",
                        data_digest="d" * 16,
                        split="test",
                        condition=condition,
                        image=f"{group:03}-{image}",
                        group=f"g{group}",
                        label=label,
                        prediction=guess,
                        decision=[guess - 0.5 + 0.2 * random.random() if decision is None else decision]
                        * (len(facts.classes) - 1),
                    )
                )
        if left_out:
            del rows[-left_out:]
    manifest = Manifest.collect(
        run_id=directory.name,
        recipe=plain,
        seed=seed,
        data=DataFacts(digest="d" * 16, datasets=({"kind": "class_folder"},)),
        accelerator="cpu",
        cpus=1,
        started=finished - timedelta(seconds=90),
        finished=finished,
        parameters=1_518_000,
        best_epoch=1,
        epochs=1,
        energy_joules=None,
    )
    write_classes(directory, rows, manifest, facts=facts)
    return directory


def configuration(directory: Path) -> str:
    (record,) = read_classes([directory]).records
    return record.table.column("configuration")[0].as_py()


class TestStore:
    def test_a_run_comes_back_as_it_was_written(self, tmp_path):
        run = write(tmp_path / "a", errors={"clean": 0.1, "shadow": 0.3})
        (record,) = read_classes([tmp_path, run]).records
        assert (record.directory, record.manifest.run_id, record.facts) == (run, "a", FACTS)
        assert record.table.schema == class_store.SCHEMA
        assert set(record.table.column("condition").to_pylist()) == {"clean", "shadow"}

    def test_a_condition_evaluated_anew_replaces_its_like_and_leaves_the_others(self, tmp_path):
        run = write(tmp_path / "a", errors={"clean": 0.1, "shadow": 1.0})
        before = read_classes([run]).records[0].table
        write(run, errors={"shadow": 0.0, "stain": 0.0})
        after = read_classes([run]).records[0].table
        assert len(after) == len(before) * 3 // 2
        shadow = [row for row in after.to_pylist() if row["condition"] == "shadow"]
        assert all(row["label"] == row["prediction"] for row in shadow)

    @pytest.mark.parametrize("value", [np.nan, -np.inf])
    def test_a_decision_that_is_no_number_is_not_written(self, tmp_path, value):
        with pytest.raises(DataError, match=r"decision values are finite; 79 of 79 rows .* image '000-0'"):
            write(tmp_path / "a", errors={"clean": 0.1}, decision=value)
        assert not (tmp_path / "a" / class_store.FILE).exists()

    def test_another_run_or_other_classes_are_never_merged(self, tmp_path):
        run = write(tmp_path / "a", errors={"clean": 0.1})
        run.rename(tmp_path / "b")
        before = (tmp_path / "b" / class_store.FILE).read_bytes()
        with pytest.raises(DataError, match="it holds run 'a', not 'b'"):
            write(tmp_path / "b", errors={"clean": 0.1})
        (tmp_path / "b").rename(run)
        others = ClassifierFacts(classes=("minor", "obvious"))
        with pytest.raises(DataError, match="its classes are sound, cracked, not minor, obvious"):
            write(run, errors={"clean": 0.1}, facts=others)
        assert (run / class_store.FILE).read_bytes() == before

    def test_what_is_no_run_is_named_and_passed_over(self, tmp_path):
        good = write(tmp_path / "good", errors={"clean": 0.1})
        whole = (good / class_store.FILE).read_bytes()
        table = pq.read_table(good / class_store.FILE)
        column = table.column_names.index
        nan = pa.array([[float("nan")]] * len(table), pa.list_(pa.float32()))
        null = pa.array([[None]] * len(table), pa.list_(pa.float32()))
        two = pa.array([2] * len(table), pa.int32())
        bad = {
            "foreign": pa.table({"x": [1]}),
            "bare": table.replace_schema_metadata(None),
            "lying": table.replace_schema_metadata(
                {**table.schema.metadata, class_store.FACTS_KEY: b'{"classes": ["one"]}'}
            ),
            "nan": table.set_column(column("decision"), "decision", nan),
            "null": table.set_column(column("decision"), "decision", null),
            "nameless": table.set_column(
                column("image"), "image", pa.array([None] * len(table), pa.string())
            ),
            "class": table.set_column(column("label"), "label", two),
            "twice": pa.concat_tables([table, table]),
        }
        for name, content in bad.items():
            (tmp_path / name).mkdir()
            pq.write_table(content, tmp_path / name / class_store.FILE)
        for name, content in {"torn": whole[:-20], "empty": b""}.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / class_store.FILE).write_bytes(content)
        runs = read_classes([tmp_path])
        assert [record.directory.name for record in runs.records] == ["good"]
        reasons = {skipped.path.parent.name: skipped.reason for skipped in runs.skipped}
        assert set(reasons) == {*bad, "torn", "empty"}
        assert "not those of a classification run" in reasons["foreign"]
        assert "carries no manifest" in reasons["bare"]
        assert "list of classes is not valid" in reasons["lying"]
        assert all("decision values are finite" in reasons[name] for name in ("nan", "null"))
        assert "a label is 0 to 1" in reasons["class"]
        assert "an image stands once under a condition" in reasons["twice"]

    def test_roots_that_do_not_exist_are_named(self, tmp_path):
        with pytest.raises(DataError, match="x: there is no such folder"):
            read_classes([tmp_path / "x"])


class TestTable:
    def test_a_row_holds_the_scores_of_its_images(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.2, "shadow": 0.4})
        records = read_classes([tmp_path]).records
        clean, shadow = class_table(records)
        assert (clean.condition, shadow.condition) == ("clean", "shadow")
        rows = [row for row in records[0].table.to_pylist() if row["condition"] == "clean"]
        labels, guesses = (np.array([row[name] for row in rows]) for name in ("label", "prediction"))
        decisions = np.array([row["decision"][0] for row in rows])
        assert clean.scores["f1"].value == pytest.approx(theirs.f1_score(labels, guesses))
        assert clean.scores["roc_auc"].value == pytest.approx(theirs.roc_auc_score(labels, decisions))
        assert clean.class_scores["class_recall"][0].value == pytest.approx(
            theirs.recall_score(labels, guesses, pos_label=0)
        )
        assert (clean.confusion == theirs.confusion_matrix(labels, guesses)).all()
        assert all(score.low <= score.value <= score.high for score in clean.scores.values())
        assert (clean.images, clean.image_groups, clean.classifier_bytes) == (79, 40, 92_000)

    def test_the_better_configuration_leads_and_equal_ones_share_a_group(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.05}, gamma=1.0)
        write(tmp_path / "b", errors={"clean": 0.05}, gamma=2.0)
        write(tmp_path / "c", errors={"clean": 0.5}, gamma=3.0)
        rows = class_table(read_classes([tmp_path]).records)
        assert [(row.rank, row.group) for row in rows] == [(1, "a"), (1, "a"), (3, "b")]
        assert "2 of 3 configurations (cnn_svm) share the best F1" in found(rows)
        assert rows[2].differs == {"classifier.gamma": 3.0}

    def test_seeds_make_one_row_and_the_newest_of_a_seed_counts(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.9}, seed=0)
        write(tmp_path / "b", errors={"clean": 0.0}, seed=0, finished=NOON + timedelta(hours=1))
        write(tmp_path / "c", errors={"clean": 0.2}, seed=1)
        (row,) = class_table(read_classes([tmp_path]).records)
        assert (row.seeds, row.run_ids) == ((0, 1), ("b", "c"))
        assert row.notes == ("3 runs of 2 seeds: the newest of each seed counts",)
        assert row.confusion.sum() == 2 * row.images

    def test_a_run_that_lacks_images_has_no_rank(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.4}, gamma=1.0)
        write(tmp_path / "b", errors={"clean": 0.0}, gamma=2.0, left_out=3)
        whole, some = class_table(read_classes([tmp_path]).records)
        assert (whole.rank, some.rank, some.group) == (1, None, "")
        assert some.notes == ("run b classified 76 of 79 images: not ranked",)

    def test_runs_that_disagree_about_an_image_are_refused(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.1}, gamma=1.0)
        write(tmp_path / "b", errors={"clean": 0.1}, gamma=2.0)
        file = tmp_path / "b" / class_store.FILE
        table = pq.read_table(file)
        flipped = pa.array([1 - value for value in table.column("label").to_pylist()], pa.int32())
        pq.write_table(table.set_column(table.column_names.index("label"), "label", flipped), file)
        with pytest.raises(DataError, match=r"image 000-0: group and label are \('g0', 0\) in run a"):
            class_table(read_classes([tmp_path]).records)

    def test_more_levels_have_macro_scores_and_no_area(self, tmp_path):
        facts = ClassifierFacts(classes=("minor", "wide", "gaping"))
        write(tmp_path / "a", errors={"clean": 0.2}, facts=facts)
        (row,) = class_table(read_classes([tmp_path]).records)
        rows = read_classes([tmp_path]).records[0].table.to_pylist()
        labels, guesses = (np.array([one[name] for one in rows]) for name in ("label", "prediction"))
        assert row.scores["f1"].value == pytest.approx(theirs.f1_score(labels, guesses, average="macro"))
        assert "roc_auc" not in row.scores
        assert len(row.class_scores["class_f1"]) == 3

    def test_one_run_gives_the_same_row_every_time(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.2})
        records = read_classes([tmp_path]).records
        assert as_text(class_table(records), kind="csv") == as_text(class_table(records), kind="csv")


@pytest.fixture
def before_and_after(tmp_path) -> Path:
    """A model, and a better one on the same images."""
    kinds = {"shadow": 0.35, "stain": 0.4, "low_contrast": 0.45}
    write(tmp_path / "before", errors={"clean": 0.1, **kinds}, gamma=1.0)
    write(tmp_path / "after", errors={"clean": 0.1, **dict.fromkeys(kinds, 0.1)}, gamma=2.0)
    return tmp_path


class TestInterference:
    def test_kinds_are_pooled_and_pairs_differ_by_after_less_before(self, before_and_after):
        pair = configuration(before_and_after / "before"), configuration(before_and_after / "after")
        records = read_classes([before_and_after]).records
        (table,) = interference_table(records, pairs=[pair], models={pair[0]: "plain", pair[1]: "whitened"})
        assert table.kinds == ("low_contrast", "shadow", "stain")
        assert table.images == 3 * 79
        assert [row.model for row in table.rows] == ["whitened", "plain"]
        plain = table.rows[1].scores
        rows = [row for row in records[1].table.to_pylist() if row["condition"] != "clean"]
        labels, guesses = (np.array([row[name] for row in rows]) for name in ("label", "prediction"))
        expected = class_scores(labels, guesses, classes=2)
        assert plain["f1"].value == pytest.approx(expected.f1)
        assert plain["false_alarm_rate"].value == pytest.approx(expected.false_alarm_rate)
        assert plain["missed_alarm_rate"].value == pytest.approx(expected.missed_alarm_rate)
        (change,) = table.pairs
        assert (change.before, change.after) == ("plain", "whitened")
        gap = change.differences["f1"]
        assert gap.value == pytest.approx(table.rows[0].scores["f1"].value - plain["f1"].value)
        assert 0 < gap.low < gap.value < gap.high
        clean = change.differences["clean_f1"]
        assert clean.low <= 0 <= clean.high  # wrong with one chance, on the same random numbers

    def test_what_the_same_seeds_make_alike_does_not_differ(self, tmp_path):
        for seed, chance in ((0, 0.1), (1, 0.4)):
            for name, gamma in (("first", 1.0), ("second", 2.0)):
                errors = {"clean": chance, "shadow": chance}
                write(tmp_path / f"{name}{seed}", errors=errors, gamma=gamma, seed=seed)
        pair = configuration(tmp_path / "first0"), configuration(tmp_path / "second0")
        (table,) = interference_table(read_classes([tmp_path]).records, pairs=[pair])
        for gap in table.pairs[0].differences.values():
            assert (gap.value, gap.low, gap.high, gap.p) == (0, 0, 0, 1)

    def test_a_model_not_evaluated_under_every_kind_is_named(self, before_and_after):
        write(before_and_after / "other", errors={"clean": 0.1, "shadow": 0.1}, gamma=3.0)
        (table,) = interference_table(read_classes([before_and_after]).records)
        assert len(table.rows) == 2
        (note,) = table.notes
        assert note.startswith("cnn_svm (gamma = 3): left out")

    def test_a_pair_of_an_unknown_configuration_is_refused(self, before_and_after):
        with pytest.raises(DataError, match="no run has the configuration 'nobody'"):
            interference_table(read_classes([before_and_after]).records, pairs=[("nobody", "nobody")])

    def test_without_disturbed_images_there_is_no_table(self, tmp_path):
        write(tmp_path / "a", errors={"clean": 0.1})
        assert interference_table(read_classes([tmp_path]).records) == []

    def test_where_no_image_is_sound_there_is_no_false_alarm_rate(self, before_and_after):
        for name in ("before", "after"):
            file = before_and_after / name / class_store.FILE
            table = pq.read_table(file)
            cracked = pa.array([1] * len(table), pa.int32())
            pq.write_table(table.set_column(table.column_names.index("label"), "label", cracked), file)
        (table,) = interference_table(read_classes([before_and_after]).records)
        assert all("false_alarm_rate" not in row.scores for row in table.rows)
        assert "| — |" in text_of([table], kind="md")


class TestGallery:
    CONDITIONS = ("clean", "shadow", "stain", "low_contrast")

    def shown(self, run: Path, **options) -> str:
        records = read_classes([run]).records
        known = {
            "load": lambda *_: np.zeros((8, 8, 3), np.uint8),
            "judge": None,
            "conditions": self.CONDITIONS,
        }
        return "".join(class_gallery(class_table(records), records, **{**known, **options}))

    def test_worst_median_best_and_each_interference_are_shown(self, tmp_path):
        run, asked = write(tmp_path / "a", errors={"clean": 0.1}), []

        def load(dataset, name, condition):
            asked.append((dataset, name, condition))
            return np.full((8, 8, 3), 90, np.uint8)

        page = self.shown(run, load=load, judge=lambda image: 0)
        rows = pq.read_table(run / class_store.FILE).to_pylist()
        sides = {row["image"]: row["decision"][0] * (1 if row["label"] else -1) for row in rows}
        order = sorted(sides, key=sides.get)
        middle = order[(len(order) - 1) // 2]
        clean = [
            ("metu2000", order[0], "clean"),
            ("metu2000", middle, "clean"),
            ("metu2000", order[-1], "clean"),
        ]
        assert asked[:3] == clean
        assert asked[3:] == [("metu2000", middle, kind) for kind in self.CONDITIONS[1:]]
        assert page.count("<img") == 6
        wrong = next(row for row in rows if row["image"] == order[0])
        names = FACTS.classes
        assert f"Worst: {names[wrong['label']]}, taken for {names[wrong['prediction']]} ({order[0]})" in page
        for word in ("Median: ", "Best: ", "Shadow: ", "Stain: ", "Low contrast: "):
            assert word in page

    def test_an_interference_that_was_judged_shows_its_own_worst_image(self, tmp_path):
        run = write(tmp_path / "a", errors={"clean": 0.0, "shadow": 0.3})
        page = self.shown(run)
        assert re.search(r"Shadow: \w+, taken for \w+ \(", page)
        assert re.search(r"Stain: \w+; not judged \(", page)

    def test_images_that_are_gone_are_a_line_each_and_no_end(self, tmp_path):
        def load(dataset, name, condition):
            raise DataError(f"{name}: no such file")

        page = self.shown(write(tmp_path / "a", errors={"clean": 0.1}), load=load)
        assert (page.count("could not be read"), page.count("<img")) == (6, 0)

    @pytest.mark.parametrize("classes", [2, 3, 4])
    def test_a_margin_is_the_nearest_decision_between_the_label_and_another_class(self, rng, classes):
        pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
        decisions, labels = rng.normal(size=(30, len(pairs))), rng.integers(0, classes, 30)
        table = pa.table({"label": labels, "decision": pa.array(decisions.tolist(), pa.list_(pa.float32()))})
        for own, label, values in zip(margins(table, classes=classes), labels, decisions, strict=True):
            sides = [
                v if i == label else -v for (i, j), v in zip(pairs, values, strict=True) if label in (i, j)
            ]
            expected = -sides[0] if classes == 2 else min(sides)
            assert own == pytest.approx(expected, abs=1e-6)


class TestExport:
    def test_every_format_names_every_score(self, before_and_after, tmp_path):
        rows = class_table(read_classes([before_and_after]).records)
        paths = write_classification(rows, tmp_path / "out", name="classification", title="Classifiers")
        assert [path.name for path in paths] == [
            f"classification.{s}" for s in ("parquet", "csv", "md", "html", "tex")
        ]
        score = f"{rows[0].scores['f1'].value:.3f}"
        for path in paths[2:]:
            content = path.read_text()
            assert all(word in content for word in (score, "False alarms", "ROC-AUC", "92.0 kB", "41.2 µs"))

    def test_the_csv_holds_every_number(self, before_and_after):
        rows = class_table(read_classes([before_and_after]).records)
        lines = list(csv.DictReader(io.StringIO(as_text(rows, kind="csv"))))
        assert len(lines) == len(rows) == 8
        for line, row in zip(lines, rows, strict=True):
            assert float(line["f1_low"]) == row.scores["f1"].low
            assert float(line["class_recall:sound"]) == row.class_scores["class_recall"][0].value
            assert json.loads(line["confusion"]) == row.confusion.tolist()

    def test_table_2_holds_models_and_changes(self, before_and_after):
        pair = configuration(before_and_after / "before"), configuration(before_and_after / "after")
        tables = interference_table(read_classes([before_and_after]).records, pairs=[pair])
        lines = list(csv.DictReader(io.StringIO(text_of(tables, kind="csv"))))
        assert [bool(line["less"]) for line in lines] == [False, False, True]
        assert float(lines[2]["f1"]) == tables[0].pairs[0].differences["f1"].value
        text = text_of(tables, kind="md")
        assert "| Model | Clean F1 | Interference F1 | False alarms | Missed alarms |" in text
        assert f"| {tables[0].pairs[0].differences['f1'].value:+.3f} " in text
        assert found_of(tables).startswith(
            "On 237 disturbed images of metu2000 (dddddddd) the best of 2 models"
        )

    @pytest.mark.parametrize("kind", ["parquet", "csv", "md", "html", "latex"])
    def test_the_command_exports_classifiers_in_every_format(self, before_and_after, tmp_path, fissura, kind):
        done = fissura("leaderboard", "export", before_and_after, "--format", kind, "--out", tmp_path / "out")
        assert done.code == 0, done.said
        (path,) = (tmp_path / "out").iterdir()
        assert (path.stem, done.out.strip()) == ("leaderboard", str(path))
        rows = class_table(read_classes([before_and_after]).records)
        if kind == "parquet":
            table = pq.read_table(path).to_pylist()
            assert [line["f1"] for line in table] == [row.scores["f1"].value for row in rows]
        else:
            values = [row.scores["f1"].value for row in rows]
            shown = [repr(value) if kind == "csv" else f"{value:.3f}" for value in values]
            assert all(value in path.read_text() for value in shown)

    def test_the_command_exports_both_tasks_side_by_side(
        self, before_and_after, write_scored_run, tmp_path, fissura
    ):
        write_scored_run(before_and_after / "segmenter")
        done = fissura(
            "leaderboard", "export", before_and_after, "--format", "csv", "--out", tmp_path / "out"
        )
        assert done.code == 0, done.said
        held = {path.name: path.read_text().count("\n") - 1 for path in (tmp_path / "out").iterdir()}
        assert held == {"leaderboard.csv": 1, "leaderboard-classifiers.csv": 8}

    def test_nothing_is_said_to_be_nothing(self):
        assert as_text([], kind="md") == "No classification run has been evaluated yet.\n"
        assert sections([]) == []

    def test_names_are_escaped(self, tmp_path):
        facts = ClassifierFacts(classes=("sound & dry", "<b>cracked|"))
        write(tmp_path / "a", errors={"clean": 0.1}, facts=facts)
        rows = class_table(read_classes([tmp_path]).records)
        assert "&lt;b&gt;cracked" in as_text(rows, kind="html")
        assert r"\<b>cracked\|" in as_text(rows, kind="md")
        assert r"sound \& dry" in as_text(rows, kind="latex")


class TestOneClass:
    """A test set whose images are all of one class has alarms, and no F1."""

    @pytest.mark.parametrize(("only", "alarms"), [(0, "false_alarm_rate"), (1, "missed_alarm_rate")])
    def test_is_ranked_by_accuracy_and_says_so(self, tmp_path, only, alarms):
        for name, chance in (("good", 0.0), ("bad", 0.4)):
            write(tmp_path / name, errors={"clean": chance}, gamma=chance + 1, only=only)
        good, bad = class_table(read_classes([tmp_path]).records)
        assert [row.run_ids for row in (good, bad)] == [("good",), ("bad",)]
        assert set(good.scores) == {"accuracy", alarms}
        assert good.scores["accuracy"].value == 1
        assert bad.scores[alarms].value == pytest.approx(1 - bad.scores["accuracy"].value)
        assert good.class_scores == {}
        sentence = (
            f"no image but of the class `{FACTS.classes[only]}`: {alarms[: -len('_alarm_rate')]} alarms"
        )
        for kind in ("md", "html", "latex", "csv"):
            said = as_text([good, bad], kind=kind).replace("\\_", "_").replace("\\`", "`")
            assert sentence in said, kind
        shown = board_text(ClassLeaderboard((good, bad)))
        assert sentence in shown
        assert "F1" not in shown
        assert "F1" not in found([good, bad])

    def test_under_interference_has_no_f1_either(self, tmp_path):
        for name, chance in (("a", 0.1), ("b", 0.2)):
            errors = {"clean": chance, "shadow": chance, "stain": chance, "low_contrast": chance}
            write(tmp_path / name, errors=errors, gamma=chance, only=0)
        records = read_classes([tmp_path]).records
        tables = interference_table(records, pairs=[tuple(configuration(tmp_path / name) for name in "ab")])
        assert set(tables[0].rows[0].scores) == {"false_alarm_rate"}
        assert "no F1" in found_of(tables)
        for kind in ("md", "html", "latex", "csv"):
            assert text_of(tables, kind=kind)
