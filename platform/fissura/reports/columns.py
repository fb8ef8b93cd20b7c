"""The columns of segmentations: once as people read them, once as programs do."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from fissura.core import text
from fissura.reports.crack_scores import FALSE_ALARMS, STATISTICS
from fissura.reports.ranked_sheet import ends, number, ranked_sheet
from fissura.reports.sheet import Column, Sheet, TableCell
from fissura.reports.standings import Standing, Table
from fissura.reports.swept import Swept

TITLES = {
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "dice": "Dice",
    "iou": "IoU",
    "false_alarms_per_image": "False alarms an image",
    "false_alarms_per_megapixel": "False alarms a megapixel",
    "false_pixels_per_megapixel": "False pixels a megapixel",
}


SWEPT = ("ods", "ods_threshold", "ois_mean", "ois_sd", "average_precision")


def sheet(table: Table) -> Sheet:
    """The table as people read it."""
    standings = table.standings
    hidden = () if table.no_crack else ("false_pixels_per_megapixel",)
    measures: list[Column[Standing]] = []
    if any(standing.swept for standing in standings):
        measures += [
            _swept("ODS", lambda w: w.ods, lambda w: f"at {w.ods_threshold:.2f}"),
            _swept("OIS", lambda w: w.ois_mean, lambda w: f"sd {w.ois_sd:.3f}"),
            _swept("AP", lambda w: w.average_precision, lambda _: ""),
        ]
    measures.append(Column("Threshold", _threshold, numeric=True))
    costs: list[Column[Standing]] = [
        Column("Training", lambda s: number(text.duration(s.seconds), s.seconds), numeric=True)
    ]
    if any(standing.energy_joules is not None for standing in standings):
        costs.append(Column("Energy", _energy, numeric=True))
    return ranked_sheet(
        standings,
        titles={name: title for name, title in TITLES.items() if name not in hidden},
        measures=measures,
        costs=costs,
        versions=lambda s: ", ".join(s.code_versions),
        heading=heading(table),
        caption=caption(table),
    )


def heading(table: Table) -> str:
    """Which table it is."""
    return f"{table.data}, {table.condition.split}: {table.condition.protocol}"


def caption(table: Table) -> str:
    """What the table's scores were measured on, and how."""
    return (
        f"{text.count(table.images, 'image')}; {f'{table.remark}; ' if table.remark else ''}"
        f"threshold {_source(table.condition.threshold_source)}; "
        f"ranked by {TITLES[table.ranked_by]}; data {table.condition.data_digest}"
    )


def _source(source: str) -> str:
    known = {
        "validation": "chosen on validation data",
        "recipe": "given by the recipe",
        "given": "given beforehand",
    }
    return known.get(source, source)


EXPLANATION = (
    "Precision, recall and F1 are of the counts summed over images (micro); "
    "macro F1 is the mean of the images' own. "
    "Each has its 95 % interval, of a bootstrap over images, and over seeds where there are several. "
    "Configurations of one group do not differ from the group's best at 5 % "
    "(paired bootstrap on the same images, Holm's correction). "
    "False alarms are predicted pieces of crack in images that hold none."
)


def _threshold(standing: Standing) -> TableCell:
    low, high = min(standing.thresholds), max(standing.thresholds)
    return TableCell(f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}–{high:.2f}", value=low)


def _swept(title: str, value: Callable[[Swept], float], detail: Callable[[Swept], str]) -> Column[Standing]:
    def entry(standing: Standing) -> TableCell:
        swept = standing.swept
        return TableCell(text.share(value(swept)), detail(swept), value(swept)) if swept else TableCell("—")

    return Column(title, entry, numeric=True)


def _energy(standing: Standing) -> TableCell:
    joules = standing.energy_joules
    return number("" if joules is None else text.scaled(joules, "J"), joules)


def flat(tables: Iterable[Table]) -> pa.Table:
    """Every number of a leaderboard: a row a configuration and table, scores with `_low` and `_high`."""
    text_, number, names = pa.string(), pa.float64(), pa.list_(pa.string())
    schema = pa.schema(
        [
            *((name, text_) for name in ("dataset", "data_digest", "split", "protocol", "threshold_source")),
            ("data_name", text_),
            ("ranked_by", text_),
            ("rank", pa.int64()),
            *((name, text_) for name in ("recipe", "configuration", "differs", "group")),
            ("seeds", pa.list_(pa.int64())),
            *((name, pa.int64()) for name in ("images", "crack_free_images")),
            *(
                (f"{name}{end}", number)
                for name in (*STATISTICS, *FALSE_ALARMS)
                for end in ("", "_low", "_high")
            ),
            ("thresholds", pa.list_(number)),
            *((name, number) for name in SWEPT),
            ("parameters", pa.int64()),
            ("seconds", number),
            ("energy_joules", number),
            *((name, names) for name in ("run_ids", "code_versions", "notes", "manifests")),
        ]
    )
    rows = [_flat(table, standing) for table in tables for standing in table.standings]
    return pa.Table.from_pylist(rows, schema=schema)


def _flat(table: Table, standing: Standing) -> dict[str, Any]:
    row: dict[str, Any] = {**table.condition._asdict(), "data_name": table.data_name}
    row["ranked_by"] = table.ranked_by
    own: Sequence[str] = (
        "rank", "recipe", "configuration", "group", "seeds", "images", "thresholds",
        "parameters", "seconds", "energy_joules", "run_ids", "code_versions", "notes",
    )  # fmt: skip
    row |= {name: getattr(standing, name) for name in own}
    row["manifests"] = [json.dumps(one.plain(), sort_keys=True) for one in standing.manifests]
    row["crack_free_images"] = len(table.crack_free)
    row["notes"] = [*([table.remark] if table.no_crack else []), *standing.notes]
    row["differs"] = json.dumps(dict(standing.differs), sort_keys=True)
    for name, score in standing.scores.items():
        row |= ends(name, score)
    swept = {} if standing.swept is None else {name: getattr(standing.swept, name) for name in SWEPT}
    return row | swept
