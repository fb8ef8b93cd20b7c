"""Classification runs on one test set, resampled on the same draws of groups of images.

Images of one group (duplicates, patches of one photograph) are drawn together. All that was measured on one
test set shares one set of draws, over conditions and configurations alike, so that every difference is
paired; seeds are drawn first, as in `fissura.reports.statistics`, and configurations with the same seeds
share that draw too: what one seed gave with and without a change is one pair.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from pydantic import JsonValue

from fissura.core.errors import DataError
from fissura.core.seeding import derive
from fissura.core.text import count
from fissura.metrics.classification import SCORES, TELLING_APART, class_rates, one_class, roc_auc
from fissura.records.class_store import CLEAN, ClassRecord, decisions_of
from fissura.reports import statistics
from fissura.reports.data_names import data_names
from fissura.reports.statistics import BLOCK, Bootstrapped, Difference, Interval, draw

CLASS_SCORES = ("class_precision", "class_recall", "class_f1")


class TestSet(NamedTuple):
    """What must be alike for two scores to be compared; the columns of that name in a run."""

    dataset: str
    data_digest: str
    split: str


class Part(NamedTuple):
    """What one run made of one test set under one condition, sorted by image."""

    record: ClassRecord
    recipe: str
    images: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Int64[np.ndarray, "image"]
    predictions: Int64[np.ndarray, "image"]
    decisions: Float32[np.ndarray, "image pair"]


class Entry(NamedTuple):
    """One configuration under one condition, a part a seed; `complete` if they classified every image."""

    parts: tuple[Part, ...]
    complete: bool
    notes: tuple[str, ...]

    @property
    def recipe(self) -> dict[str, JsonValue]:
        """The recipe of the first seed in plain form."""
        return self.parts[0].record.manifest.recipe


class Comparison:
    """What each configuration made of one test set: `entries[condition][configuration]`, clean first;
    `data_name` is what people call its data.

    Raises:
        DataError: two runs give one image another label or group, or name other classes.
    """

    def __init__(
        self, test_set: TestSet, parts: Mapping[tuple[str, str], list[Part]], *, data_name: str
    ) -> None:
        every = [part for several in parts.values() for part in several]
        _check_alike(every)
        names = sorted({group for part in every for group in part.groups})
        self.test_set, self.data_name = test_set, data_name
        self.classes = every[0].record.facts.classes
        self.entries: dict[str, dict[str, Entry]] = {}
        self._place = {name: index for index, name in enumerate(names)}
        self._seed = derive(0, *test_set, *names)
        self._draws = draw(len(names), seed=self._seed)
        for condition in sorted({condition for condition, _ in parts}, key=lambda c: (c != CLEAN, c)):
            here = {name: found for (c, name), found in sorted(parts.items()) if c == condition}
            images = {image for found in here.values() for part in found for image in part.images}
            self.entries[condition] = {name: _entry(found, len(images)) for name, found in here.items()}

    def resampled(self, *pooled: Entry) -> dict[str, Bootstrapped]:
        """Every score of one configuration over the images of all of `pooled`, which hold the same seeds.

        Names as `resample`, and `roc_auc` for a single entry of two classes; without the undefined ones. Of
        images of one class only accuracy and alarms are defined.
        """
        seeds = list(zip(*(entry.parts for entry in pooled), strict=True))
        counts = np.stack([np.sum([self._counts(part) for part in parts], axis=0) for parts in seeds])
        seed = derive(self._seed, "seeds", *(part.record.manifest.seed for part in pooled[0].parts))
        scores = resample(counts, draws=self._draws, classes=len(self.classes), seed=seed)
        ranked = len(self.classes) == 2 and all(part.decisions.shape[1] == 1 for part in pooled[0].parts)
        if ranked and len(pooled) == 1:
            areas = [self._area(part) for part in pooled[0].parts]
            shares = draw(len(areas), seed=seed, replicates=len(self._draws)) / len(areas)
            replicates = np.einsum("rs,sr->r", shares, np.stack([area.replicates for area in areas]))
            scores["roc_auc"] = Bootstrapped(float(np.mean([area.value for area in areas])), replicates)
        labelled = np.concatenate([part.labels for entry in pooled for part in entry.parts])
        if one_class(labelled, self.classes):
            scores = {name: own for name, own in scores.items() if not name.startswith(TELLING_APART)}
        return {name: score for name, score in scores.items() if not np.isnan(score.value)}

    def _counts(self, part: Part) -> Float64[np.ndarray, "group cell"]:
        classes = len(self.classes)
        cells = (self._rows(part) * classes + part.labels) * classes + part.predictions
        size = len(self._place) * classes * classes
        return np.bincount(cells, minlength=size).reshape(len(self._place), -1).astype(np.float64)

    def _rows(self, part: Part) -> Int64[np.ndarray, "image"]:
        return np.array([self._place[group] for group in part.groups])

    def _area(self, part: Part) -> Bootstrapped:
        rows, decisions = self._rows(part), part.decisions[:, 0]
        step = max(1, BLOCK // len(rows))
        blocks = [
            roc_auc(part.labels, decisions, weights=self._draws[i : i + step, rows])
            for i in range(0, len(self._draws), step)
        ]
        replicates = np.concatenate(blocks)
        alone = len(set(part.groups)) == 1
        return Bootstrapped(
            float(roc_auc(part.labels, decisions)[0]),
            np.full_like(replicates, np.nan) if alone else replicates,
        )


def resample(
    counts: Float64[np.ndarray, "seed group cell"],
    *,
    draws: UInt8[np.ndarray, "replicate group"],
    classes: int,
    seed: int,
) -> dict[str, Bootstrapped]:
    """Every score of one configuration in every replicate: one matrix product of draws and counts.

    Args:
        counts: of each group of images, its confusion matrix in one row, label by label.
        draws: of the groups, the same for all that is to be compared.
        classes: the number of classes.
        seed: of the draw of seeds, where there is more than one.

    Returns:
        By name as SCORES, and `class_f1/0` and so on for single classes. A score is the mean over seeds of
        each seed's own; nan in a replicate in which it is undefined, or that holds no image, and in each
        where all images that it is of are in one group.
    """
    seeds, groups, cells = counts.shape
    table = np.ascontiguousarray(counts.transpose(1, 0, 2)).reshape(groups, seeds * cells)
    step = max(1, BLOCK // groups)
    blocks = [draws[i : i + step].astype(np.float64) @ table for i in range(0, len(draws), step)]
    sums = np.concatenate(blocks).reshape(-1, seeds, classes, classes)
    none = sums.sum(axis=(2, 3)) == 0
    shares = draw(seeds, seed=seed, replicates=len(draws)) / seeds
    whole = class_rates(counts.sum(axis=1).reshape(seeds, classes, classes))
    drawn = class_rates(sums)

    holds = np.asarray(counts.reshape(seeds, groups, classes, classes).any(axis=(0, 3)))  # group, label
    every = list(range(classes))
    shares_of = {"false_alarm_rate": [0], "missed_alarm_rate": every[1:]}
    if classes == 2:
        shares_of["recall"] = [1]

    def score(
        values: Float64[np.ndarray, "seed"], replicates: Float64[np.ndarray, "replicate seed"], of: list[int]
    ) -> Bootstrapped:
        alone = np.count_nonzero(holds[:, of].any(axis=1)) == 1
        known = np.where(none | alone, np.nan, replicates)
        return Bootstrapped(float(values.mean()), np.einsum("rs,rs->r", shares, known))

    results = {
        name: score(getattr(whole, name), getattr(drawn, name), shares_of.get(name, every)) for name in SCORES
    }
    for name in CLASS_SCORES:
        values, replicates = getattr(whole, name), getattr(drawn, name)
        for index in range(classes):
            of = [index] if name == "class_recall" else every
            results[f"{name}/{index}"] = score(values[:, index], replicates[..., index], of)
    return results


def defined(scores: Sequence[Bootstrapped]) -> list[Bootstrapped]:
    """The scores in those replicates in which each of them is defined."""
    kept = np.all([np.isfinite(score.replicates) for score in scores], axis=0)
    return [Bootstrapped(score.value, score.replicates[kept]) for score in scores]


def interval(score: Bootstrapped) -> Interval:
    """The score with its percentile interval, over the replicates in which it is defined."""
    return defined([score])[0].interval()


def difference(first: Bootstrapped, second: Bootstrapped) -> Difference:
    """The paired difference, over the replicates in which both are defined."""
    return statistics.difference(*defined([first, second]))


def comparisons(records: Sequence[ClassRecord]) -> list[Comparison]:
    """One comparison for each test set that the records hold.

    A configuration is a recipe without its seed. Of several runs of one configuration and seed the last
    finished counts; a run that lacks images which others classified is left out, unless no other is left.

    Raises:
        DataError: two runs give one image another label or group, or name other classes.
    """
    found: dict[TestSet, dict[tuple[str, str], list[Part]]] = defaultdict(lambda: defaultdict(list))
    names = (*TestSet._fields, "condition", "configuration")
    for record in records:
        where: dict[tuple[str, ...], list[int]] = defaultdict(list)
        columns = [record.table.column(name).to_pylist() for name in names]
        for index, key in enumerate(zip(*columns, strict=True)):
            where[key].append(index)
        for (*test_set, condition, configuration), indices in where.items():
            part = _part(record, indices)
            found[TestSet(*test_set)][condition, configuration].append(part)
    called = data_names(records)
    return [
        Comparison(test_set, found[test_set], data_name=called[test_set.dataset, test_set.data_digest])
        for test_set in sorted(found)
    ]


def _part(record: ClassRecord, indices: list[int]) -> Part:
    rows = record.table.take(indices).sort_by("image")
    return Part(
        record,
        rows.column("recipe")[0].as_py(),
        tuple(rows.column("image").to_pylist()),
        tuple(rows.column("group").to_pylist()),
        rows.column("label").to_numpy().astype(np.int64),
        rows.column("prediction").to_numpy().astype(np.int64),
        decisions_of(rows),
    )


def _check_alike(parts: Sequence[Part]) -> None:
    known: dict[str, tuple[tuple[str, int], str]] = {}
    first = parts[0].record
    for part in parts:
        run = part.record.manifest.run_id
        if part.record.facts.classes != first.facts.classes:
            named = " and ".join(", ".join(one.facts.classes) for one in (first, part.record))
            raise DataError(
                f"runs {first.manifest.run_id} and {run}: one test set has one list of classes, not {named}; "
                "compare them apart"
            )
        for image, *belongs in zip(part.images, part.groups, part.labels.tolist(), strict=True):
            own = tuple(belongs)
            held, holder = known.setdefault(image, (own, run))
            if held != own:
                raise DataError(
                    f"image {image}: group and label are {held} in run {holder} and {own} in run {run}; "
                    "evaluate one of them again"
                )


def _entry(parts: Sequence[Part], images: int) -> Entry:
    notes = []
    newest = {
        part.record.manifest.seed: part
        for part in sorted(parts, key=lambda part: part.record.manifest.finished)
    }
    if len(newest) < len(parts):
        several = f"{count(len(parts), 'run')} of {count(len(newest), 'seed')}"
        notes.append(f"{several}: the newest of each seed counts")
    chosen = [newest[seed] for seed in sorted(newest)]
    whole = [part for part in chosen if len(part.images) == images]
    for part in chosen:
        if len(part.images) != images:
            some = f"run {part.record.manifest.run_id} classified {len(part.images)} of {images} images"
            notes.append(f"{some}: {'left out' if whole else 'not ranked'}")
    # Without one whole run there is nothing to rank; the fullest is shown.
    kept = whole or [max(chosen, key=lambda part: len(part.images))]
    return Entry(tuple(kept), bool(whole), tuple(notes))
