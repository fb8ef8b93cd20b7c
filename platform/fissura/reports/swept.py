"""Scores of a configuration that sweep the threshold over the images they are scored on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fissura.metrics import Counts, pool, rates, sweep
from fissura.records.store import CURVES


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


def swept_of(seeds: Sequence[pa.Table]) -> Swept | None:
    """The scores of a configuration from the rows of each seed; None where a protocol keeps no curve, or no
    image holds a crack."""
    if any(rows.column(name).null_count for rows in seeds for name in CURVES):
        return None
    if not any(seeds[0].column("crack_pixels").to_pylist()):
        return None
    counts = [_counts(rows) for rows in seeds]
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
