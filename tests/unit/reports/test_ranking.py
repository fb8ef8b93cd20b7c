"""The ranking knows no task: it takes parts of runs and a score function, here of one that counts boxes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from fissura.records.manifest import DataFacts, Manifest
from fissura.records.run_table import Record, RunFacts
from fissura.reports.ranking import Entry, Order, entry_of, ranked
from fissura.reports.statistics import Bootstrapped, Scores, Sums, bootstrap, draw

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Boxes(NamedTuple):
    """What one run found of the boxes of each image, and what it found beside them."""

    record: Record[RunFacts]
    recipe: str
    images: Sequence[str]
    found: Sequence[float]
    wrong: Sequence[float]


def boxes(run_id: str, found: Sequence[float], *, seed: int = 0, hours: int = 0, wrong: float = 0) -> Boxes:
    manifest = Manifest.collect(
        run_id=run_id, recipe={"name": "boxes", "seed": seed}, seed=seed,
        data=DataFacts(digest="d" * 16, datasets=()), accelerator="cpu", cpus=1, started=NOON,
        finished=NOON + timedelta(hours=1 + hours), parameters=7, best_epoch=1, epochs=1, energy_joules=None,
    )  # fmt: skip
    record = Record(Path(run_id), manifest, pa.table({}), RunFacts())
    names = [f"{index:03}" for index in range(len(found))]
    return Boxes(record, "boxes", names, found, [wrong] * len(found))


def rates(sums: Sums) -> dict[str, Scores]:
    """The share of boxes that were found, undefined where there is none, and the wrong ones."""
    return {"found": np.full_like(sums[..., 0], np.nan), "wrong": sums[..., 1]}


def shares(sums: Sums) -> dict[str, Scores]:
    return {"found": sums[..., 0], "wrong": sums[..., 1]}


def scores(entry: Entry[Boxes], function: Any = shares) -> dict[str, Bootstrapped]:
    features = np.array([np.stack([part.found, part.wrong], axis=1) for part in entry.parts], dtype=float)
    return bootstrap(features, draws=draw(features.shape[1], seed=0), seed=1, score=function)


def table(
    configurations: dict[str, list[Boxes]], orders: Sequence[Order], function: Any = shares
) -> list[tuple[int | None, str, str, str]]:
    """Rank, configuration, group and score that it is ranked by, of each row of images 000 to 039."""
    entries = {name: entry_of(parts, images=40, verb="saw") for name, parts in configurations.items()}
    own = {name: scores(entry, function) for name, entry in entries.items()}
    return [
        (row.rank, row.configuration, row.group, row.ranked_by) for row, _ in ranked(entries, own, orders)
    ]


MORE, LESS = Order("found", -1), Order("wrong", 1)
BETTER, WORSE = [1.0] * 40, [0.0, 1.0] * 20


def test_the_best_leads_and_exact_ties_share_its_rank() -> None:
    rows = table(
        {"c": [boxes("c", WORSE)], "b": [boxes("b", BETTER)], "a": [boxes("a", BETTER)]}, [MORE, LESS]
    )
    assert rows == [(1, "a", "a", "found"), (1, "b", "a", "found"), (3, "c", "b", "found")]


def test_of_errors_fewer_are_better() -> None:
    rows = table({"a": [boxes("a", BETTER, wrong=3)], "b": [boxes("b", WORSE, wrong=1)]}, [LESS])
    assert [name for _, name, *_ in rows] == ["b", "a"]


def test_a_score_that_is_undefined_gives_way_to_the_next() -> None:
    rows = table({"a": [boxes("a", BETTER, wrong=3)], "b": [boxes("b", WORSE, wrong=1)]}, [MORE, LESS], rates)
    assert [(name, by) for _, name, _, by in rows] == [("b", "wrong"), ("a", "wrong")]


def test_a_run_that_lacks_images_is_shown_last_without_a_rank() -> None:
    rows = table({"a": [boxes("a", BETTER[:9])], "b": [boxes("b", WORSE)]}, [MORE])
    assert rows == [(1, "b", "a", "found"), (None, "a", "", "found")]


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_run_of_a_seed_counts_and_the_notes_say_so(order: int) -> None:
    runs = [boxes("old", WORSE), boxes("new", BETTER, hours=1), boxes("some", BETTER[:9], seed=1)]
    entry = entry_of(runs[::order], images=40, verb="saw")
    assert [part.record.manifest.run_id for part in entry.parts] == ["new"]
    assert entry.notes == (
        "3 runs of 2 seeds: the newest of each seed counts",
        "run some saw 9 of 40 images: left out",
    )


def test_seeds_are_one_row_and_its_score_their_mean() -> None:
    entry = entry_of([boxes("a", BETTER), boxes("b", WORSE, seed=1)], images=40, verb="saw")
    ((row, _),) = ranked({"a": entry}, {"a": scores(entry)}, [MORE])
    assert (row.seeds, row.run_ids, row.scores["found"].value) == ((0, 1), ("a", "b"), 30)
