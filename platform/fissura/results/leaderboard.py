"""The leaderboard: configurations ranked by their scores, like only with like."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from pydantic import JsonValue

from fissura.core.brief import Brief
from fissura.core.seeding import derive
from fissura.metrics import AnyProtocol, Counts, pool, rates, sweep
from fissura.results import text
from fissura.results.data_names import data_names
from fissura.results.manifest import Manifest
from fissura.results.statistics import FEATURES, Bootstrapped, Interval, bootstrap, draw, groups, ranks
from fissura.results.store import CURVES, Row, RunRecord, ThresholdSource

if TYPE_CHECKING:
    from fissura.results.classification import ClassRow

Metric = Literal["f1", "macro_f1", "precision", "recall", "dice", "iou"]


class Condition(NamedTuple):
    """What must be alike for two scores to be ranked together; the columns of that name in a run."""

    dataset: str
    data_digest: str
    split: str
    protocol: str
    threshold_source: str


@dataclass(frozen=True)
class Swept:
    """ODS, OIS and AP, as `fissura.metrics.sweep` has them, and the curve that they are of: precision and
    recall of the pooled images at the levels 1..255. All are means over seeds."""

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    ods: float
    ods_threshold: float
    ois_mean: float
    ois_sd: float
    average_precision: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One configuration in a table.

    `rank` is None where no seed scored every image; exact ties share one. `differs` holds the parameters, in
    dotted form, in which it differs from the table's other configurations of the same recipe. `scores` has
    the names of `statistics.STATISTICS`: micro precision, recall and f1, macro_*, dice and iou where the
    protocol has them. `seconds` and `energy_joules` are of one training, the mean over seeds. `image_f1` is
    each image's F1, the mean over seeds. `seeds`, `thresholds`, `run_ids`, `directories` and `manifests` go
    together.
    """

    rank: int | None
    recipe: str
    configuration: str
    differs: Mapping[str, JsonValue]
    seeds: tuple[int, ...]
    images: int
    scores: Mapping[str, Interval]
    thresholds: tuple[float, ...]
    swept: Swept | None
    group: str
    parameters: int
    seconds: float
    energy_joules: float | None
    run_ids: tuple[str, ...]
    directories: tuple[Path, ...]
    code_versions: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    image_f1: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The configurations scored under one condition, best first; those without a rank last. `data_name` is
    what people call the data set."""

    condition: Condition
    ranked_by: Metric
    images: int
    standings: tuple[Standing, ...]
    data_name: str

    @property
    def data(self) -> str:
        """The data set by its name and what it holds: "bridge (1a2b3c4d)"."""
        return text.data(self.data_name, self.condition.data_digest)


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
        from fissura.results.frames import leaders

        return leaders(self)

    def rows(self) -> list[dict[str, Any]]:
        """Every number: a row for each configuration under each condition, classifiers last."""
        from fissura.results.frames import board_rows

        return board_rows(self)

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
        columns = [self.rows.column(name).to_numpy(zero_copy_only=False) for name in FEATURES]
        return np.stack(columns, axis=1).astype(np.float64)


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
    by: Metric = metric if all(metric in entry.scores for _, entry in entries) else "f1"
    entries.sort(key=lambda pair: (not pair[1].complete, -pair[1].scores[by].value, pair[0]))
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
    return Table(condition, by, len(names), tuple(standings), data_name)


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
        swept=_swept(entry.parts),
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


def _swept(parts: list[_Part]) -> Swept | None:
    if any(part.rows.column(name).null_count for part in parts for name in CURVES):
        return None
    counts = [_counts(part.rows) for part in parts]
    sweeps, curves = [sweep(images) for images in counts], [rates(pool(images)) for images in counts]
    return Swept(
        precision=tuple(np.mean([curve.precision[1:] for curve in curves], axis=0).tolist()),
        recall=tuple(np.mean([curve.recall[1:] for curve in curves], axis=0).tolist()),
        ods=float(np.mean([one.ods.f1 for one in sweeps])),
        ods_threshold=float(np.mean([one.threshold for one in sweeps])),
        ois_mean=float(np.mean([one.ois_mean for one in sweeps])),
        ois_sd=float(np.mean([one.ois_sd for one in sweeps])),
        average_precision=float(np.mean([one.average_precision for one in sweeps])),
    )


def _counts(rows: pa.Table) -> list[Counts]:
    curves = [
        rows.column(name).combine_chunks().flatten().to_numpy().reshape(len(rows), -1).astype(np.int64)
        for name in CURVES
    ]
    return [Counts(*image) for image in zip(*curves, strict=True)]


def differences(recipes: Sequence[Mapping[str, JsonValue]]) -> list[dict[str, JsonValue]]:
    """For each recipe, the dotted parameters not alike in all recipes of its name; never the seed."""
    flat = [flatten(recipe) for recipe in recipes]
    by_name: dict[Any, list[dict[str, JsonValue]]] = defaultdict(list)
    for one in flat:
        by_name[one.get("name")].append(one)
    varied = {name: _varied(group) for name, group in by_name.items()}
    return [{key: one[key] for key in varied[one.get("name")] if key in one} for one in flat]


def _varied(group: list[dict[str, JsonValue]]) -> list[str]:
    keys = dict.fromkeys(key for one in group for key in one if key != "seed")
    absent = object()
    return [key for key in keys if any(one.get(key, absent) != group[0].get(key, absent) for one in group)]


def flatten(plain: Any, prefix: str = "") -> dict[str, JsonValue]:
    """Nested JSON as dotted keys; a list's item goes by its `name` where it has one, else by its place."""
    if isinstance(plain, Mapping) and plain:
        items = [(str(key), value) for key, value in plain.items()]
    elif isinstance(plain, list) and any(isinstance(item, Mapping | list) for item in plain):
        named = [
            str(item.get("name", i)) if isinstance(item, Mapping) else str(i) for i, item in enumerate(plain)
        ]
        items = list(zip(named, plain, strict=True))
    else:
        return {prefix: plain}
    flat: dict[str, JsonValue] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat
