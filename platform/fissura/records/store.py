"""The store of segmentation runs: one Parquet file a run, a row for each image and protocol."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from fissura.core.text import count, data
from fissura.metrics.false_alarms import NO_CRACK
from fissura.records.manifest import Manifest
from fissura.records.run_table import LIMITS, Record, RunFacts, Runs, RunTable
from fissura.records.table import TableFormat

FILE = "run.parquet"
PREDICTIONS = "predictions"

ThresholdSource = Literal["validation", "recipe", "given", "swept on test"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The score of one image under one protocol at one threshold; the columns of `run.parquet`, in order.

    `configuration` is the digest of the recipe without its seed. The four counts are pixels: precision is
    tp / (tp + fp), recall is found / (found + missed). `dice` and `iou` are None where the protocol has none.
    The curves hold the same counts at the levels 0..255 of the 8-bit map, for protocols that sweep the
    threshold; else None. `alarm_components` and `alarm_area` are the false alarms and the valid pixels of an
    image without a crack (its false pixels are `false_positive`); else None. They are None, too, as is
    `data_name`, what people call the data set, in runs that were scored before they were kept.
    """

    run_id: str
    recipe: str
    configuration: str
    seed: int
    dataset: str
    data_digest: str
    split: str
    protocol: str
    threshold: float
    threshold_source: ThresholdSource
    image: str
    height: int
    width: int
    true_positive: int
    false_positive: int
    found: int
    missed: int
    precision: float
    recall: float
    f1: float
    dice: float | None
    iou: float | None
    crack_pixels: int
    curve_true_positive: Int32[np.ndarray, "256"] | None = None
    curve_false_positive: Int32[np.ndarray, "256"] | None = None
    curve_found: Int32[np.ndarray, "256"] | None = None
    curve_missed: Int32[np.ndarray, "256"] | None = None
    alarm_components: int | None = None
    alarm_area: int | None = None
    data_name: str | None = None


CURVES = tuple(field.name for field in fields(Row) if field.name.startswith("curve_"))
ALARMS = ("alarm_components", "alarm_area")
LATER = (*ALARMS, "data_name")  # columns that earlier versions did not write
NULLABLE = ("dice", "iou", *CURVES, *LATER)


def _column_type(name: str) -> pa.DataType:
    if name in CURVES:
        return pa.list_(pa.int32())
    if name in ("threshold", "precision", "recall", "f1", "dice", "iou"):
        return pa.float64()
    if name in ("seed", "true_positive", "false_positive", "found", "missed", "crack_pixels", *ALARMS):
        return pa.int64()
    if name in ("height", "width"):
        return pa.int32()
    return pa.string()


SCHEMA = pa.schema(
    [pa.field(f.name, _column_type(f.name), nullable=f.name in NULLABLE) for f in fields(Row)],
)


RunRecord = Record[RunFacts]
TABLE = RunTable(
    file=FILE,
    form=TableFormat(schema=SCHEMA, foreign="its columns are not those of a run", later=LATER, limits=LIMITS),
    key=("data_digest", "split", "protocol"),
    facts=RunFacts,
)


def mean_scores(rows: Sequence[Row]) -> list[str]:
    """The mean F1 of the images with a crack of each data set, split and protocol, a line each."""
    sets: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        name = data(row.data_name or row.dataset, row.data_digest)
        sets.setdefault((name, row.split, row.protocol, f"{row.threshold:.3g}"), []).append(row)
    lines = []
    for (name, split, protocol, threshold), members in sets.items():
        cracked = [row.f1 for row in members if row.crack_pixels]
        mean = f"mean F1 {np.mean(cracked):.4f} of {count(len(cracked), 'image')}" if cracked else NO_CRACK
        lines.append(f"{name} {split}, {protocol}, threshold {threshold}: {mean}")
    return lines


def prediction_path(run_dir: Path, *, dataset: str, data_digest: str, split: str, image: str) -> Path:
    """Where the 8-bit probability map of an image lies in a run directory."""
    return prediction_folder(run_dir, dataset, data_digest=data_digest, split=split) / f"{image}.png"


def prediction_folder(run_dir: Path, dataset: str, *, data_digest: str, split: str) -> Path:
    """Where the maps of a data set's images lie in a run directory."""
    return run_dir / PREDICTIONS / f"{dataset}-{split}-{data_digest[:8]}"


def write_run(run_dir: Path, rows: Iterable[Row], manifest: Manifest) -> Path:
    """Writes `run.parquet` as `RunTable.write` does."""
    return TABLE.write(run_dir, rows, manifest, RunFacts())


def read_runs(roots: Sequence[Path]) -> Runs[RunFacts]:
    """Every run of a segmentation under `roots`, as `RunTable.read_all` finds them."""
    return TABLE.read_all(roots)
