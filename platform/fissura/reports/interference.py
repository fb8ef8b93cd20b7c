"""What interference costs: the paper's Table 2, with intervals, and what changed between two models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fissura.core import text
from fissura.core.errors import DataError
from fissura.records.class_store import CLEAN, ClassRecord
from fissura.reports.class_draws import ClassEntry, Comparison, TestSet, comparisons
from fissura.reports.differences import differences, differing
from fissura.reports.statistics import Bootstrapped, Difference, Interval, difference

TABLE_2 = ("clean_f1", "f1", "false_alarm_rate", "missed_alarm_rate")
"""The scores of an interference table: F1 on clean images; the others on disturbed images of all kinds."""


@dataclass(frozen=True, kw_only=True)
class InterferenceRow:
    """A model on clean and on disturbed images; `scores` has the names of TABLE_2, but for the undefined."""

    model: str
    configuration: str
    scores: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class InterferencePair:
    """Two models by name, and after less before in each of TABLE_2 that both have."""

    before: str
    after: str
    differences: Mapping[str, Difference]


@dataclass(frozen=True, kw_only=True)
class InterferenceTable:
    """The paper's Table 2 for one test set; `images` counts the disturbed images of all `kinds`; `data_name`
    is what people call the data."""

    test_set: TestSet
    data_name: str
    kinds: tuple[str, ...]
    images: int
    rows: tuple[InterferenceRow, ...]
    pairs: tuple[InterferencePair, ...]
    notes: tuple[str, ...]

    @property
    def data(self) -> str:
        """The data set by its name and what it holds: "bridge (1a2b3c4d)"."""
        return text.data(self.data_name, self.test_set.data_digest)


def interference_table(
    records: Sequence[ClassRecord],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    models: Mapping[str, str] | None = None,
) -> list[InterferenceTable]:
    """Each model on clean and on disturbed images, and what changed from the first of a pair to the second.

    A model is in the table of a test set if it classified every image of it, clean and under each kind of
    interference; those that did not are named in its notes.

    Args:
        records: the runs, of any number of test sets.
        pairs: configurations (before, after), such as without and with whitening.
        models: what to call a configuration; by default its recipe and what sets it apart.

    Raises:
        DataError: a pair names a configuration that no run has; runs that disagree about the images.
    """
    known = {name for record in records for name in record.table.column("configuration").unique().to_pylist()}
    unknown = [name for name in dict.fromkeys(one for pair in pairs for one in pair) if name not in known]
    if unknown:
        raise DataError(
            *(
                f"pair: no run has the configuration {name!r}; known: {', '.join(sorted(known))}"
                for name in unknown
            )
        )
    tables = [
        _interference(one, pairs, models or {}) for one in comparisons(records) if set(one.entries) != {CLEAN}
    ]
    return [table for table in tables if table.kinds]


def _interference(
    comparison: Comparison, pairs: Sequence[tuple[str, str]], models: Mapping[str, str]
) -> InterferenceTable:
    conditions = list(comparison.entries)
    kinds = tuple(condition for condition in conditions if condition != CLEAN)
    names = sorted({name for entries in comparison.entries.values() for name in entries})
    entry_of_name = {name: next(e[name] for e in comparison.entries.values() if name in e) for name in names}
    model_names = _called(entry_of_name, models)
    scores: dict[str, dict[str, Bootstrapped]] = {}
    notes = []
    for name in names:
        entries_found = [
            comparison.entries[c].get(name) for c in dict.fromkeys((CLEAN, *kinds)) if c in comparison.entries
        ]
        entries = _same_seeds([entry for entry in entries_found if entry is not None and entry.complete])
        if CLEAN not in conditions or len(entries) <= len(kinds):
            notes.append(
                f"{model_names[name]}: left out, for it did not classify every image, clean and disturbed"
            )
            continue
        disturbed = comparison.resampled(*entries[1:])
        clean = comparison.resampled(entries[0])
        own = {**disturbed, **({"clean_f1": clean["f1"]} if "f1" in clean else {})}
        scores[name] = {key: own[key] for key in TABLE_2 if key in own}
    images = sum(max(len(e.parts[0].images) for e in comparison.entries[kind].values()) for kind in kinds)
    return InterferenceTable(
        test_set=comparison.test_set,
        data_name=comparison.data_name,
        kinds=kinds,
        images=images,
        rows=tuple(
            InterferenceRow(
                model=model_names[name],
                configuration=name,
                scores={key: score.interval() for key, score in own.items()},
            )
            for name, own in sorted(scores.items(), key=_best_first)
        ),
        pairs=tuple(
            InterferencePair(
                before=model_names[before],
                after=model_names[after],
                differences={
                    key: difference(scores[after][key], scores[before][key])
                    for key in TABLE_2
                    if key in scores[before] and key in scores[after]
                },
            )
            for before, after in pairs
            if before in scores and after in scores
        ),
        notes=tuple(notes),
    )


def _best_first(item: tuple[str, Mapping[str, Bootstrapped]]) -> tuple[float, str]:
    """By F1 under interference, which images of one class do not have."""
    name, own = item
    return -own["f1"].value if "f1" in own else 0.0, name


def _same_seeds(entries: Sequence[ClassEntry]) -> list[ClassEntry]:
    """The entries with the seeds that all of them have, or nothing where there is none."""
    seeds = [{part.record.manifest.seed for part in entry.parts} for entry in entries]
    common = set.intersection(*seeds) if seeds else set()
    if not common:
        return []
    return [
        entry._replace(parts=tuple(part for part in entry.parts if part.record.manifest.seed in common))
        for entry in entries
    ]


def _called(entries: Mapping[str, ClassEntry], models: Mapping[str, str]) -> dict[str, str]:
    differs = differences([entry.recipe for entry in entries.values()])
    called = {}
    for (name, entry), own in zip(entries.items(), differs, strict=True):
        apart = ", ".join(differing(own, among=differs))
        default = f"{entry.parts[0].recipe} ({apart})" if apart else entry.parts[0].recipe
        called[name] = models.get(name, default)
    return called
