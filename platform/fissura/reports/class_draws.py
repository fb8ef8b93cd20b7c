"""Classification runs on one test set, resampled on the same draws of groups of images.

Images of one group (duplicates, patches of one photograph) are drawn together. All that was measured on one
test set shares one set of draws, over conditions and configurations alike, so that every difference is
paired; seeds are drawn first, as in `fissura.reports.statistics`, and configurations with the same seeds
share that draw too: what one seed gave with and without a change is one pair.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

from fissura.core.errors import DataError
from fissura.core.seeding import derive
from fissura.metrics.classification import SCORES, TELLING_APART, class_rates, one_class, roc_auc
from fissura.records.class_store import CLEAN, ClassRecord, decisions_of
from fissura.reports.data_names import data_names
from fissura.reports.ranking import Entry, divided, entry_of
from fissura.reports.statistics import BLOCK, Bootstrapped, Scores, Sums, bootstrap, draw

CLASS_SCORES = ("class_precision", "class_recall", "class_f1")


class TestSet(NamedTuple):
    """What must be alike for two scores to be compared; the columns of that name in a run."""

    dataset: str
    data_digest: str
    split: str


class ClassPart(NamedTuple):
    """What one run made of one test set under one condition, sorted by image."""

    record: ClassRecord
    recipe: str
    images: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Int64[np.ndarray, " image"]
    predictions: Int64[np.ndarray, " image"]
    decisions: Float32[np.ndarray, "image pair"]


ClassEntry = Entry[ClassPart]


class Comparison:
    """What each configuration made of one test set: `entries[condition][configuration]`, clean first;
    `data_name` is what people call its data.

    Raises:
        DataError: two runs give one image another label or group, or name other classes.
    """

    def __init__(
        self, test_set: TestSet, parts: Mapping[tuple[str, str], list[ClassPart]], *, data_name: str
    ) -> None:
        all_parts = [part for several in parts.values() for part in several]
        _check_consistent(all_parts)
        names = sorted({group for part in all_parts for group in part.groups})
        self.test_set, self.data_name = test_set, data_name
        self.classes = all_parts[0].record.facts.classes
        self.entries: dict[str, dict[str, ClassEntry]] = {}
        self._index_of_group = {name: index for index, name in enumerate(names)}
        self._seed = derive(0, *test_set, *names)
        self._draws = draw(len(names), seed=self._seed)
        for condition in sorted({condition for condition, _ in parts}, key=lambda c: (c != CLEAN, c)):
            parts_by_name = {name: found for (c, name), found in sorted(parts.items()) if c == condition}
            images = {image for found in parts_by_name.values() for part in found for image in part.images}
            self.entries[condition] = {
                name: entry_of(found, images=len(images), verb="classified")
                for name, found in parts_by_name.items()
            }

    def resampled(self, *pooled: ClassEntry) -> dict[str, Bootstrapped]:
        """Every score of one configuration over the images of all of `pooled`, which hold the same seeds.

        Names as `rates_of`, and `roc_auc` for a single entry of two classes; without the undefined ones. Of
        images of one class only accuracy and alarms are defined.
        """
        seeds = list(zip(*(entry.parts for entry in pooled), strict=True))
        counts = np.stack([np.sum([self._counts(part) for part in parts], axis=0) for parts in seeds])
        seed = derive(self._seed, "seeds", *(part.record.manifest.seed for part in pooled[0].parts))
        classes = len(self.classes)
        scores = bootstrap(
            counts,
            draws=self._draws,
            seed=seed,
            score=partial(rates_of, classes=classes),
            alone=resting_on_one(counts, classes=classes),
        )
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

    def _counts(self, part: ClassPart) -> Float64[np.ndarray, "group cell"]:
        classes = len(self.classes)
        cells = (self._rows(part) * classes + part.labels) * classes + part.predictions
        size = len(self._index_of_group) * classes * classes
        return np.bincount(cells, minlength=size).reshape(len(self._index_of_group), -1).astype(np.float64)

    def _rows(self, part: ClassPart) -> Int64[np.ndarray, " image"]:
        return np.array([self._index_of_group[group] for group in part.groups])

    def _area(self, part: ClassPart) -> Bootstrapped:
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


def rates_of(sums: Sums, *, classes: int) -> dict[str, Scores]:
    """Every score of confusion matrices, each in one row, label by label; nan where it is undefined.

    Names are those of SCORES, and `class_f1/0` and so on for single classes.
    """
    matrices = sums.reshape(*sums.shape[:-1], classes, classes)
    rates, nothing = class_rates(matrices), matrices.sum(axis=(-2, -1)) == 0
    scores = {name: getattr(rates, name) for name in SCORES}
    for name in CLASS_SCORES:
        scores |= {f"{name}/{index}": getattr(rates, name)[..., index] for index in range(classes)}
    return {name: np.where(nothing, np.nan, values) for name, values in scores.items()}


def resting_on_one(counts: Float64[np.ndarray, "seed group cell"], *, classes: int) -> list[str]:
    """The scores of `rates_of` for which one group alone counts: the others hold no image of their labels."""
    every = list(range(classes))
    labels = dict.fromkeys(SCORES, every) | {"false_alarm_rate": [0], "missed_alarm_rate": every[1:]}
    if classes == 2:
        labels["recall"] = [1]
    for name in CLASS_SCORES:
        labels |= {f"{name}/{index}": [index] if name == "class_recall" else every for index in every}
    holds = np.asarray(counts.reshape(*counts.shape[:-1], classes, classes).any(axis=(0, 3)))  # group, label
    return [name for name, own in labels.items() if np.count_nonzero(holds[:, own].any(axis=1)) == 1]


def comparisons(records: Sequence[ClassRecord]) -> list[Comparison]:
    """One comparison for each test set that the records hold.

    A configuration is a recipe without its seed. Of several runs of one configuration and seed the last
    finished counts; a run that lacks images which others classified is left out, unless no other is left.

    Raises:
        DataError: two runs give one image another label or group, or name other classes.
    """
    parts: dict[TestSet, dict[tuple[str, str], list[ClassPart]]] = defaultdict(lambda: defaultdict(list))
    names = (*TestSet._fields, "condition", "configuration")
    for record in records:
        for (*test_set, condition, configuration), rows in divided(record.table, names):
            parts[TestSet(*test_set)][condition, configuration].append(_part(record, rows))
    names_of_data = data_names(records)
    return [
        Comparison(test_set, parts[test_set], data_name=names_of_data[test_set.dataset, test_set.data_digest])
        for test_set in sorted(parts)
    ]


def _part(record: ClassRecord, rows: pa.Table) -> ClassPart:
    return ClassPart(
        record,
        rows.column("recipe")[0].as_py(),
        tuple(rows.column("image").to_pylist()),
        tuple(rows.column("group").to_pylist()),
        rows.column("label").to_numpy().astype(np.int64),
        rows.column("prediction").to_numpy().astype(np.int64),
        decisions_of(rows),
    )


def _check_consistent(parts: Sequence[ClassPart]) -> None:
    known: dict[str, tuple[tuple[str, int], str]] = {}
    first = parts[0].record
    for part in parts:
        run = part.record.manifest.run_id
        if part.record.facts.classes != first.facts.classes:
            named = " and ".join(", ".join(record.facts.classes) for record in (first, part.record))
            raise DataError(
                f"runs {first.manifest.run_id} and {run}: one test set has one list of classes, not {named}; "
                "compare them apart"
            )
        for image, *belongs in zip(part.images, part.groups, part.labels.tolist(), strict=True):
            own = tuple(belongs)
            known_value, known_run = known.setdefault(image, (own, run))
            if known_value != own:
                raise DataError(
                    f"image {image}: group and label are {known_value} in run {known_run} and {own} in run"
                    f" {run}; evaluate one of them again"
                )
