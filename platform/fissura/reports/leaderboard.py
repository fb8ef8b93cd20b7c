"""The leaderboard: configurations ranked by their scores, like only with like."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float64

from fissura.core.seeding import derive
from fissura.metrics import AnyProtocol
from fissura.records.store import Row, RunRecord, ThresholdSource
from fissura.reports.crack_scores import COUNTS, MEANS, crack_scores, resting_on_one
from fissura.reports.data_names import data_names
from fissura.reports.ranking import Order, divided, entry_of, ranked
from fissura.reports.standings import Condition, Metric, Ranked, Standing, Table
from fissura.reports.statistics import bootstrap, draw
from fissura.reports.swept import swept_of

ORDERS = (Order("f1", -1), Order("false_alarms_per_megapixel", 1), Order("false_pixels_per_megapixel", 1))


@dataclass(frozen=True)
class Leaderboard:
    """One table a condition, by data set; thresholds chosen on test data come last."""

    tables: tuple[Table, ...]

    def led_by(self, protocol: str) -> "Leaderboard":
        """The same tables, of those of one data set and kind of threshold that of `protocol` first."""

        def order(table: Table) -> tuple[object, ...]:
            data, rest = _order(table.condition)[:3], _order(table.condition)[3:]
            return data, table.condition.protocol != protocol, rest

        return Leaderboard(tuple(sorted(self.tables, key=order)))

    def divided(self, rows: Iterable[Row]) -> "tuple[Leaderboard, Leaderboard]":
        """The tables that `rows` stand in, in the order of the rows, and the others."""
        conditions = dict.fromkeys(
            Condition(*(getattr(row, name) for name in Condition._fields)) for row in rows
        )
        own = {table.condition: table for table in self.tables if table.condition in conditions}
        others = tuple(table for table in self.tables if table.condition not in conditions)
        return Leaderboard(tuple(own[condition] for condition in conditions)), Leaderboard(others)


def _order(condition: Condition) -> tuple[str, ...]:
    # "validation", "recipe", "given", "swept on test": the more a threshold knew of the test data, the later.
    known = str(get_args(ThresholdSource).index(condition.threshold_source))
    kinds = [protocol.model_fields["kind"].default for protocol in get_args(get_args(AnyProtocol)[0])]
    kind = condition.protocol.partition(":")[0]
    kind_index = str(kinds.index(kind)) if kind in kinds else "unknown"
    return condition.dataset, condition.split, known, kind_index, condition.protocol, condition.data_digest


class _Part(NamedTuple):
    """What one run scored under one condition: its rows, sorted by image."""

    record: RunRecord
    rows: pa.Table

    @property
    def recipe(self) -> str:
        return str(self.rows.column("recipe")[0])

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

    def _column(self, name: str) -> Float64[np.ndarray, " image"]:
        values: Float64[np.ndarray, " image"] = self.rows.column(name).to_numpy(zero_copy_only=False)
        return values.astype(np.float64)


def leaderboard(records: Sequence[RunRecord], *, metric: Metric = "f1") -> Leaderboard:
    """Ranks configurations by `metric`, one table a condition; a table that lacks `metric` goes by F1.

    A configuration is a recipe without its seed: its seeds make one row. Of several runs of one configuration
    and seed the last finished counts. A run that lacks images which others of its table scored is left out of
    its configuration's scores; where no other seed is left, the row is shown without a rank.
    """
    parts_of: dict[Condition, dict[str, list[_Part]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for (*key, configuration), rows in divided(record.table, (*Condition._fields, "configuration")):
            parts_of[Condition(*key)][configuration].append(_Part(record, rows))
    names = data_names(records)
    return Leaderboard(
        tuple(
            _table(key, dict(parts_of[key]), metric, names[key.dataset, key.data_digest])
            for key in sorted(parts_of, key=_order)
        )
    )


def _table(condition: Condition, found: dict[str, list[_Part]], metric: Metric, data_name: str) -> Table:
    names = sorted({name for parts in found.values() for part in parts for name in part.images})
    seed = derive(0, *condition, *names)
    draws = draw(len(names), seed=seed)
    entries = {name: entry_of(parts, images=len(names), verb="scored") for name, parts in found.items()}
    scores = {}
    for configuration, entry in entries.items():
        features = np.stack([part.features() for part in entry.parts])
        images = features.shape[1]
        scores[configuration] = bootstrap(
            features,
            draws=draws if entry.complete else draw(images, seed=seed),
            seed=derive(seed, "seeds", configuration),
            score=partial(crack_scores, images=images),
            alone=resting_on_one(features),
        )
    rows = ranked(entries, scores, [Order(metric, -1), *ORDERS])
    standings = [_standing(row, entry.parts, source=condition.threshold_source) for row, entry in rows]
    free = frozenset[str]().union(*(part.crack_free() for parts in found.values() for part in parts))
    return Table(condition, rows[0][0].ranked_by, len(names), tuple(standings), data_name, free)


def _standing(row: Ranked, parts: Sequence[_Part], *, source: str) -> Standing:
    manifests = [part.record.manifest for part in parts]
    energies = [manifest.energy_joules for manifest in manifests if manifest.energy_joules is not None]
    f1 = np.mean([part.rows.column("f1").to_numpy() for part in parts], axis=0)
    return Standing(
        **vars(replace(row, notes=(*((source,) if source == "swept on test" else ()), *row.notes))),
        thresholds=tuple(part.rows.column("threshold")[0].as_py() for part in parts),
        swept=swept_of([part.rows for part in parts]),
        energy_joules=float(np.mean(energies)) if len(energies) == len(manifests) else None,
        code_versions=tuple(sorted({manifest.code_version for manifest in manifests})),
        manifests=tuple(manifests),
        image_f1=dict(zip(parts[0].images, f1.tolist(), strict=True)),
    )
