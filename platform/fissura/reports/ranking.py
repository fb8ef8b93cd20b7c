"""Ranks the configurations of a table, for any task and scores."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from fissura.core.text import count
from fissura.records.run_table import Record
from fissura.reports.differences import differences
from fissura.reports.standings import Ranked
from fissura.reports.statistics import Bootstrapped, groups, ranks


class Part(Protocol):
    """What one run made of the images of a table, sorted by image."""

    @property
    def record(self) -> Record[Any]:
        """The run."""

    @property
    def recipe(self) -> str:
        """The name of its recipe."""

    @property
    def images(self) -> Sequence[str]:
        """The names of the images."""


P = TypeVar("P", bound=Part)


class Entry(NamedTuple, Generic[P]):
    """One configuration, a part a seed; `complete` if they hold every image."""

    parts: tuple[P, ...]
    complete: bool
    notes: tuple[str, ...]

    @property
    def recipe(self) -> dict[str, JsonValue]:
        """The recipe of the first seed in plain form."""
        return self.parts[0].record.manifest.recipe


class Order(NamedTuple):
    """A score that tables are ranked by, and the sign that makes less of it better."""

    score: str
    sign: int


def divided(table: pa.Table, names: Sequence[str]) -> list[tuple[tuple[Any, ...], pa.Table]]:
    """The rows of each combination of values in the columns `names`, sorted by image."""
    columns = [table.column(name).to_pylist() for name in names]
    where: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, key in enumerate(zip(*columns, strict=True)):
        where[key].append(index)
    return [(key, table.take(indices).sort_by("image")) for key, indices in where.items()]


def entry_of(parts: Sequence[P], *, images: int, verb: str) -> Entry[P]:
    """One configuration of its runs: of several of one seed the last finished counts, and one that lacks some
    of the `images` is left out, unless no other is left. `verb` is what a run did with an image."""
    notes = []
    newest: dict[int, P] = {}
    for part in sorted(parts, key=lambda part: part.record.manifest.finished):
        newest[part.record.manifest.seed] = part
    if len(newest) < len(parts):
        several = f"{count(len(parts), 'run')} of {count(len(newest), 'seed')}"
        notes.append(f"{several}: the newest of each seed counts")
    chosen = [newest[seed] for seed in sorted(newest)]
    whole = [part for part in chosen if len(part.images) == images]
    for part in chosen:
        if len(part.images) != images:
            some = f"run {part.record.manifest.run_id} {verb} {len(part.images)} of {images} images"
            notes.append(f"{some}: {'left out' if whole else 'not ranked'}")
    # Without one whole run there is nothing to rank; the fullest is shown.
    kept = whole or [max(chosen, key=lambda part: len(part.images))]
    return Entry(tuple(kept), bool(whole), tuple(notes))


def ranked(
    entries: Mapping[str, Entry[P]],
    scores: Mapping[str, Mapping[str, Bootstrapped]],
    orders: Sequence[Order],
) -> list[tuple[Ranked, Entry[P]]]:
    """The configurations of one table, best first, those without a rank last.

    They are ranked by the first of `orders` that each complete one has (each at all, where none is complete),
    or else by the last.
    """
    complete = [name for name in entries if entries[name].complete]
    compared = [scores[name] for name in complete or entries]
    by, sign = next((order for order in orders if all(order.score in own for own in compared)), orders[-1])

    def place(name: str) -> tuple[bool, float, str]:
        # an incomplete one may hold no image that the score is of
        value = sign * scores[name][by].value if by in scores[name] else math.inf
        return not entries[name].complete, value, name

    names = sorted(entries, key=place)
    leading = [scores[name][by] for name in names[: len(complete)]]
    letters, places = groups(leading), ranks([score.value for score in leading])
    differs = differences([entries[name].recipe for name in names])
    rows = []
    for index, name in enumerate(names):
        entry = entries[name]
        manifests = [part.record.manifest for part in entry.parts]
        row = Ranked(
            ranked_by=by,
            rank=places[index] if entry.complete else None,
            recipe=entry.parts[0].recipe,
            configuration=name,
            differs=differs[index],
            seeds=tuple(manifest.seed for manifest in manifests),
            images=len(entry.parts[0].images),
            scores={key: score.interval() for key, score in scores[name].items()},
            group=letters[index] if entry.complete else "",
            parameters=manifests[0].parameters,
            seconds=float(np.mean([manifest.seconds for manifest in manifests])),
            run_ids=tuple(manifest.run_id for manifest in manifests),
            directories=tuple(part.record.directory for part in entry.parts),
            notes=entry.notes,
        )
        rows.append((row, entry))
    return rows
