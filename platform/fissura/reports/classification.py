"""The table of classification runs: scores with intervals, significance groups, bytes and microseconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64
from pydantic import JsonValue

from fissura.core import text
from fissura.metrics.classification import confusion, one_class
from fissura.records.class_store import ClassRecord
from fissura.reports import statistics
from fissura.reports.class_draws import (
    CLASS_SCORES,
    Comparison,
    Entry,
    TestSet,
    comparisons,
    defined,
    interval,
)
from fissura.reports.differences import differences
from fissura.reports.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One configuration under one condition.

    `data_name` is what people call the data. `rank` is None where no seed classified every image; exact ties
    share one. `differs` as in a leaderboard. `scores` has the names of
    `fissura.metrics.classification.SCORES` and `roc_auc`, but for what is undefined; `class_scores` those of
    CLASS_SCORES, one interval a class; precision, recall and F1 are in neither where the images are all of
    one class, of which `remark` then speaks. `group` is the letter of its significance group, by F1, or by
    accuracy where there is none. `confusion` is summed over seeds, its rows are labels. Bytes are the largest
    of the seeds; microseconds (an image) and seconds (of the training) are their mean. `parameters` are as in
    the manifest; `run_ids` and `directories` go together.
    """

    test_set: TestSet
    data_name: str
    condition: str
    classes: tuple[str, ...]
    rank: int | None
    recipe: str
    configuration: str
    differs: Mapping[str, JsonValue]
    seeds: tuple[int, ...]
    images: int
    image_groups: int
    scores: Mapping[str, Interval]
    class_scores: Mapping[str, tuple[Interval, ...]]
    group: str
    confusion: Int64[np.ndarray, "label prediction"]
    classifier_bytes: int | None
    classifier_microseconds: float | None
    backbone_bytes: int | None
    backbone_microseconds: float | None
    parameters: int
    seconds: float
    run_ids: tuple[str, ...]
    directories: tuple[Path, ...]
    notes: tuple[str, ...]
    remark: str = ""

    @property
    def data(self) -> str:
        """The data set by its name and what it holds: "bridge (1a2b3c4d)"."""
        return text.data(self.data_name, self.test_set.data_digest)

    @property
    def ranked_by(self) -> Literal["f1", "accuracy"]:
        """The score that it is ranked by."""
        return ranked_by(self.scores)


def ranked_by(scores: Mapping[str, object]) -> Literal["f1", "accuracy"]:
    """The score that configurations with these are ranked by: images of one class have no F1."""
    return "f1" if "f1" in scores else "accuracy"


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


def _rows(comparison: Comparison, condition: str, entries: Mapping[str, Entry]) -> list[ClassRow]:
    scores = {name: comparison.resampled(entry) for name, entry in entries.items()}
    complete = [name for name in entries if entries[name].complete]
    by = ranked_by(scores[(complete or [*entries])[0]])

    def place(name: str) -> tuple[bool, float, str]:
        own = scores[name]
        # an incomplete one may hold images of one class alone
        return not entries[name].complete, -own[by].value if by in own else math.inf, name

    names = sorted(entries, key=place)
    ranked = [scores[name][by] for name in names if entries[name].complete]
    letters, places = statistics.groups(defined(ranked)), statistics.ranks([score.value for score in ranked])
    differs = differences([entries[name].recipe for name in names])
    return [
        _row(
            comparison,
            condition,
            name,
            scores={key: interval(score) for key, score in scores[name].items()},
            differs=differs[index],
            rank=places[index] if entries[name].complete else None,
            group=letters[index] if entries[name].complete else "",
        )
        for index, name in enumerate(names)
    ]


def _row(
    comparison: Comparison,
    condition: str,
    name: str,
    *,
    scores: Mapping[str, Interval],
    differs: Mapping[str, JsonValue],
    rank: int | None,
    group: str,
) -> ClassRow:
    entry, classes = comparison.entries[condition][name], comparison.classes
    parts = entry.parts
    manifests, facts = [part.record.manifest for part in parts], [part.record.facts for part in parts]
    matrices = [confusion(part.labels, part.predictions, len(classes)) for part in parts]
    return ClassRow(
        test_set=comparison.test_set,
        data_name=comparison.data_name,
        condition=condition,
        classes=classes,
        rank=rank,
        recipe=parts[0].recipe,
        configuration=name,
        differs=differs,
        seeds=tuple(manifest.seed for manifest in manifests),
        images=len(parts[0].images),
        image_groups=len(set(parts[0].groups)),
        scores={key: score for key, score in scores.items() if "/" not in key},
        class_scores={
            key: tuple(scores[f"{key}/{index}"] for index in range(len(classes)))
            for key in CLASS_SCORES
            if f"{key}/0" in scores
        },
        group=group,
        confusion=np.sum(matrices, axis=0),
        classifier_bytes=_largest([one.classifier_bytes for one in facts]),
        classifier_microseconds=_mean([one.classifier_microseconds for one in facts]),
        backbone_bytes=_largest([one.backbone_bytes for one in facts]),
        backbone_microseconds=_mean([one.backbone_microseconds for one in facts]),
        parameters=manifests[0].parameters,
        seconds=float(np.mean([manifest.seconds for manifest in manifests])),
        run_ids=tuple(manifest.run_id for manifest in manifests),
        directories=tuple(part.record.directory for part in parts),
        notes=entry.notes,
        remark=one_class(parts[0].labels, classes),
    )


def _largest(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
