"""The leaderboard: configurations ranked by their scores, like only with like."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from pydantic import JsonValue

from fissura.core import text
from fissura.core.brief import Brief
from fissura.core.seeding import derive
from fissura.metrics import AnyProtocol
from fissura.records.store import Row, RunRecord, ThresholdSource
from fissura.reports.data_names import data_names
from fissura.reports.differences import differences
from fissura.reports.frames import board_rows, leaders
from fissura.reports.standings import AlarmRate, Condition, Metric, Standing, Table
from fissura.reports.statistics import (
    COUNTS,
    MEANS,
    Bootstrapped,
    bootstrap,
    draw,
    groups,
    ranks,
)
from fissura.reports.swept import swept_of

if TYPE_CHECKING:
    from fissura.reports.classification import ClassRow


@dataclass(frozen=True, repr=False)
class Leaderboard(Brief):
    """One table a condition, by data set; thresholds chosen on test data come last. `classes` are the rows of
    classifiers."""

    tables: tuple[Table, ...]
    classes: "tuple[ClassRow, ...]" = ()

    @property
    def best_run(self) -> Path | None:
        """The run that leads the first table, or the classifiers where no other has a rank; of several seeds
        the first."""
        standings = [standing for table in self.tables for standing in table.standings]
        leading = [standing.directories[0] for standing in standings if standing.rank == 1]
        leading += [row.directories[0] for row in self.classes if row.rank == 1]
        return leading[0] if leading else None

    def lines(self) -> list[str]:
        """Who leads under each condition, and the best run."""
        return leaders(self.tables, self.classes, best_run=self.best_run)

    def rows(self) -> list[dict[str, Any]]:
        """Every number: a row for each configuration under each condition, classifiers last."""
        return board_rows(self.tables, self.classes)

    def led_by(self, protocol: str) -> "Leaderboard":
        """The same tables, of those of one data set and kind of threshold that of `protocol` first."""

        def order(table: Table) -> tuple[object, ...]:
            data, rest = _order(table.condition)[:3], _order(table.condition)[3:]
            return data, table.condition.protocol != protocol, rest

        return replace(self, tables=tuple(sorted(self.tables, key=order)))

    def divided(self, rows: Iterable[Row]) -> "tuple[Leaderboard, Leaderboard]":
        """The tables that `rows` stand in, in the order of the rows, and the others."""
        asked = dict.fromkeys(Condition(*(getattr(row, name) for name in Condition._fields)) for row in rows)
        own = {table.condition: table for table in self.tables if table.condition in asked}
        others = tuple(table for table in self.tables if table.condition not in asked)
        return Leaderboard(tuple(own[condition] for condition in asked)), Leaderboard(others)


def _order(condition: Condition) -> tuple[str, ...]:
    # "validation", "recipe", "given", "swept on test": the more a threshold knew of the test data, the later.
    known = str(get_args(ThresholdSource).index(condition.threshold_source))
    kinds = [protocol.model_fields["kind"].default for protocol in get_args(get_args(AnyProtocol)[0])]
    kind = condition.protocol.partition(":")[0]
    place = str(kinds.index(kind)) if kind in kinds else "unknown"
    return condition.dataset, condition.split, known, place, condition.protocol, condition.data_digest


class _Part(NamedTuple):
    """What one run scored under one condition: its rows, sorted by image."""

    record: RunRecord
    rows: pa.Table

    @property
    def images(self) -> list[str]:
        names: list[str] = self.rows.column("image").to_pylist()
        return names

    def features(self) -> Float64[np.ndarray, "image feature"]:
        scored = [self._column(name) for name in (*COUNTS, *MEANS)]
        free = self._column("crack_pixels") == 0
        area = self._column("alarm_area")
        # of a run that was scored before they were kept, the components are not known
        area = np.where(np.isnan(area), self._column("height") * self._column("width"), area)
        alarms = [self._column("alarm_components"), self._column("false_positive"), area]
        return np.stack([*scored, free, *(np.where(free, amount, 0) for amount in alarms)], axis=1)

    def crack_free(self) -> set[str]:
        """The images without a crack."""
        free = self._column("crack_pixels") == 0
        return {name for name, has_none in zip(self.images, free, strict=True) if has_none}

    def _column(self, name: str) -> Float64[np.ndarray, "image"]:
        values: Float64[np.ndarray, image] = self.rows.column(name).to_numpy(zero_copy_only=False)
        return values.astype(np.float64)


class _Entry(NamedTuple):
    """A configuration on its way into a table."""

    parts: list[_Part]
    complete: bool
    scores: dict[str, Bootstrapped]
    notes: list[str]


def leaderboard(records: Sequence[RunRecord], *, metric: Metric = "f1") -> Leaderboard:
    """Ranks configurations by `metric`, one table a condition; a table that lacks `metric` goes by F1.

    A configuration is a recipe without its seed: its seeds make one row. Of several runs of one configuration
    and seed the last finished counts. A run that lacks images which others of its table scored is left out of
    its configuration's scores; where no other seed is left, the row is shown without a rank.
    """
    found: dict[Condition, dict[str, list[_Part]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for (condition, configuration), rows in _split(record.table):
            found[condition][configuration].append(_Part(record, rows))
    names = data_names(records)
    return Leaderboard(
        tuple(
            _table(key, dict(found[key]), metric, names[key.dataset, key.data_digest])
            for key in sorted(found, key=_order)
        )
    )


def _split(table: pa.Table) -> list[tuple[tuple[Condition, str], pa.Table]]:
    columns = [table.column(name).to_pylist() for name in (*Condition._fields, "configuration")]
    where: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, key in enumerate(zip(*columns, strict=True)):
        where[key].append(index)
    return [
        ((Condition(*key[:-1]), key[-1]), table.take(indices).sort_by("image"))
        for key, indices in where.items()
    ]


def _table(condition: Condition, found: dict[str, list[_Part]], metric: Metric, data_name: str) -> Table:
    names = sorted({name for parts in found.values() for part in parts for name in part.images})
    seed = derive(0, *condition, *names)
    draws = draw(len(names), seed=seed)
    entries = []
    for configuration, parts in found.items():
        entry = _entry(parts, len(names))
        features = np.stack([part.features() for part in entry.parts])
        own = draws if entry.complete else draw(features.shape[1], seed=seed)
        scores = bootstrap(features, draws=own, seed=derive(seed, "seeds", configuration))
        entries.append((configuration, entry._replace(scores=scores)))
    ranked = [entry.scores for _, entry in entries if entry.complete]
    by, sign = _ranking(ranked or [entry.scores for _, entry in entries], metric)

    def place(pair: tuple[str, _Entry]) -> tuple[bool, float, str]:
        configuration, entry = pair
        # an incomplete one may hold no image that the score is of
        value = entry.scores[by].value if by in entry.scores else math.inf
        return not entry.complete, sign * value, configuration

    entries.sort(key=place)
    complete = [entry.scores[by] for _, entry in entries if entry.complete]
    letters, places = groups(complete), ranks([score.value for score in complete])
    differs = differences([entry.parts[0].record.manifest.recipe for _, entry in entries])
    standings = [
        _standing(
            configuration,
            entry,
            rank=places[index] if entry.complete else None,
            group=letters[index] if entry.complete else "",
            differs=differs[index],
            source=condition.threshold_source,
        )
        for index, (configuration, entry) in enumerate(entries)
    ]
    free = frozenset[str]().union(*(part.crack_free() for parts in found.values() for part in parts))
    return Table(condition, by, len(names), tuple(standings), data_name, free)


def _ranking(scores: Sequence[Mapping[str, Bootstrapped]], metric: Metric) -> tuple[Metric | AlarmRate, int]:
    """What a table is ranked by, and whether more of it is better (-1) or less (1)."""
    wanted: tuple[Metric, ...] = (metric, "f1")
    for name in wanted:
        if all(name in own for own in scores):
            return name, -1
    every = all("false_alarms_per_megapixel" in own for own in scores)
    return ("false_alarms_per_megapixel" if every else "false_pixels_per_megapixel"), 1


def _entry(parts: list[_Part], images: int) -> _Entry:
    notes = []
    newest: dict[int, _Part] = {}
    for part in sorted(parts, key=lambda part: part.record.manifest.finished):
        newest[part.record.manifest.seed] = part
    repeats = len(parts) - len(newest)
    if repeats:
        several = f"{text.count(len(parts), 'run')} of {text.count(len(newest), 'seed')}"
        notes.append(f"{several}: the newest of each seed counts")
    chosen = [newest[seed] for seed in sorted(newest)]
    whole = [part for part in chosen if len(part.images) == images]
    for part in chosen:
        if len(part.images) != images:
            scored = f"run {part.record.manifest.run_id} scored {len(part.images)} of {images} images"
            notes.append(f"{scored}: left out" if whole else f"{scored}: not ranked")
    # Without one whole run there is nothing to rank; the fullest is shown.
    return _Entry(whole or [max(chosen, key=lambda part: len(part.images))], bool(whole), {}, notes)


def _standing(
    configuration: str,
    entry: _Entry,
    *,
    rank: int | None,
    group: str,
    differs: dict[str, JsonValue],
    source: str,
) -> Standing:
    manifests = [part.record.manifest for part in entry.parts]
    energies = [manifest.energy_joules for manifest in manifests if manifest.energy_joules is not None]
    f1 = np.mean([part.rows.column("f1").to_numpy() for part in entry.parts], axis=0)
    return Standing(
        rank=rank,
        recipe=entry.parts[0].rows.column("recipe")[0].as_py(),
        configuration=configuration,
        differs=differs,
        seeds=tuple(manifest.seed for manifest in manifests),
        images=len(f1),
        scores={name: scores.interval() for name, scores in entry.scores.items()},
        thresholds=tuple(part.rows.column("threshold")[0].as_py() for part in entry.parts),
        swept=swept_of([part.rows for part in entry.parts]),
        group=group,
        parameters=manifests[0].parameters,
        seconds=float(np.mean([manifest.seconds for manifest in manifests])),
        energy_joules=float(np.mean(energies)) if len(energies) == len(manifests) else None,
        run_ids=tuple(manifest.run_id for manifest in manifests),
        directories=tuple(part.record.directory for part in entry.parts),
        code_versions=tuple(sorted({manifest.code_version for manifest in manifests})),
        manifests=tuple(manifests),
        image_f1=dict(zip(entry.parts[0].images, f1.tolist(), strict=True)),
        notes=(*((source,) if source == "swept on test" else ()), *entry.notes),
    )
