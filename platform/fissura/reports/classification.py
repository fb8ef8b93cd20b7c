"""The table of classification runs: scores with intervals, significance groups, bytes and microseconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from jaxtyping import Int64

from fissura.core import text
from fissura.metrics.classification import confusion, one_class
from fissura.records.class_store import ClassRecord
from fissura.reports.class_draws import CLASS_SCORES, ClassEntry, ClassPart, Comparison, TestSet, comparisons
from fissura.reports.ranking import Order, ranked
from fissura.reports.standings import Ranked
from fissura.reports.statistics import Interval

ORDERS = (Order("f1", -1), Order("accuracy", -1))  # images of one class have no F1


@dataclass(frozen=True, kw_only=True)
class ClassRow(Ranked):
    """One configuration of classifiers under one condition.

    `data_name` is what people call the data. `scores` has the names of
    `fissura.metrics.classification.SCORES` and `roc_auc`; `class_scores` those of CLASS_SCORES, one interval
    a class; precision, recall and F1 are in neither where the images are all of one class, of which `remark`
    then speaks. `confusion` is summed over seeds, its rows are labels. Bytes are the largest of the seeds;
    microseconds (an image) are their mean.
    """

    test_set: TestSet
    data_name: str
    condition: str
    classes: tuple[str, ...]
    image_groups: int
    class_scores: Mapping[str, tuple[Interval, ...]]
    confusion: Int64[np.ndarray, "label prediction"]
    classifier_bytes: int | None
    classifier_microseconds: float | None
    backbone_bytes: int | None
    backbone_microseconds: float | None
    remark: str = ""

    @property
    def data(self) -> str:
        """The data set by its name and what it holds: "bridge (1a2b3c4d)"."""
        return text.data(self.data_name, self.test_set.data_digest)


def tables_of(rows: Sequence[ClassRow]) -> list[list[ClassRow]]:
    """The rows of `class_table` by test set and condition."""
    return [list(own) for _, own in groupby(rows, key=lambda row: (row.test_set, row.condition))]


def class_table(records: Sequence[ClassRecord]) -> list[ClassRow]:
    """One row for each configuration, test set and condition: by condition, clean first, then by F1.

    A configuration is a recipe without its seed. Of several runs of one configuration and seed the last
    finished counts; a run that lacks images which others classified is left out, and where no other seed is
    left, its row has no rank.

    Raises:
        DataError: two runs give one image another label or group, or name other classes.
    """
    return [
        row
        for comparison in comparisons(records)
        for condition, entries in comparison.entries.items()
        for row in _rows(comparison, condition, entries)
    ]


def _rows(comparison: Comparison, condition: str, entries: Mapping[str, ClassEntry]) -> list[ClassRow]:
    scores = {name: comparison.resampled(entry) for name, entry in entries.items()}
    return [_row(comparison, condition, row, entry.parts) for row, entry in ranked(entries, scores, ORDERS)]


def _row(comparison: Comparison, condition: str, row: Ranked, parts: Sequence[ClassPart]) -> ClassRow:
    classes, scores = comparison.classes, row.scores
    facts = [part.record.facts for part in parts]
    matrices = [confusion(part.labels, part.predictions, len(classes)) for part in parts]
    return ClassRow(
        **vars(replace(row, scores={key: score for key, score in scores.items() if "/" not in key})),
        test_set=comparison.test_set,
        data_name=comparison.data_name,
        condition=condition,
        classes=classes,
        image_groups=len(set(parts[0].groups)),
        class_scores={
            key: tuple(scores[f"{key}/{index}"] for index in range(len(classes)))
            for key in CLASS_SCORES
            if f"{key}/0" in scores
        },
        confusion=np.sum(matrices, axis=0),
        classifier_bytes=_largest([one.classifier_bytes for one in facts]),
        classifier_microseconds=_mean([one.classifier_microseconds for one in facts]),
        backbone_bytes=_largest([one.backbone_bytes for one in facts]),
        backbone_microseconds=_mean([one.backbone_microseconds for one in facts]),
        remark=one_class(parts[0].labels, classes),
    )


def _largest(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
