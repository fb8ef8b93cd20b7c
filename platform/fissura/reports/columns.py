"""The columns of a leaderboard: once as people read them, once as programs do."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import JsonValue

from fissura.core import text
from fissura.reports.crack_scores import FALSE_ALARMS, STATISTICS
from fissura.reports.sheet import APART, NAME, RUNS, Column, Sheet, TableCell, score_entry, sheet_of
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
    """The table as people read it, in the columns that it has something to say in.

    Rank, name and what the table is ranked by come first, so that a narrow screen shows them.
    """
    standings = table.standings
    by = table.ranked_by
    scored = [name for name in TITLES if any(name in standing.scores for standing in standings)]
    if not table.no_crack:
        scored = [name for name in scored if name != "false_pixels_per_megapixel"]
    chosen = [Column("Rank", _rank, numeric=True), Column(NAME, lambda s: TableCell(s.recipe))]
    chosen += [Column(TITLES[name], _score(name), numeric=True) for name in scored if name == by]
    if any(standing.differs for standing in standings):
        every = [standing.differs for standing in standings]
        chosen.append(Column(APART, lambda s: TableCell("\n".join(differing(s.differs, among=every)) or "—")))
    chosen.append(Column("Group", lambda s: TableCell(s.group or "—")))
    chosen += [Column(TITLES[name], _score(name), numeric=True) for name in scored if name != by]
    if any(standing.swept for standing in standings):
        chosen += [
            Column(
                "ODS",
                lambda s: _swept(s, lambda w: w.ods, lambda w: f"at {w.ods_threshold:.2f}"),
                numeric=True,
            ),
            Column(
                "OIS", lambda s: _swept(s, lambda w: w.ois_mean, lambda w: f"sd {w.ois_sd:.3f}"), numeric=True
            ),
            Column("AP", lambda s: _swept(s, lambda w: w.average_precision, lambda _: ""), numeric=True),
        ]
    chosen += [
        Column("Threshold", _threshold, numeric=True),
        Column("Seeds", lambda s: TableCell(str(len(s.seeds)), value=len(s.seeds)), numeric=True),
        Column("Weights", lambda s: TableCell(text.scaled(s.parameters), value=s.parameters), numeric=True),
        Column("Training", lambda s: TableCell(text.duration(s.seconds), value=s.seconds), numeric=True),
    ]
    if any(standing.energy_joules is not None for standing in standings):
        chosen.append(Column("Energy", _energy, numeric=True))
    if any(standing.notes for standing in standings):
        chosen.append(Column("Notes", lambda s: TableCell("; ".join(s.notes))))
    chosen.append(Column(RUNS, lambda s: TableCell("\n".join(s.run_ids), ", ".join(s.code_versions))))
    return sheet_of(
        standings,
        chosen,
        heading=heading(table),
        caption=caption(table),
        whisker=(TITLES[by], [standing.scores.get(by) for standing in standings]),
    )


def differing(differs: Mapping[str, JsonValue], *, among: Iterable[Mapping[str, JsonValue]]) -> list[str]:
    """`parameter = value` for each parameter in which a configuration differs from its neighbours `among`
    which it is shown; of the path, what tells it apart from the others of the table."""
    short = text.shortened(key for other in among for key in other)
    return [f"{short[key]} = {plain(value)}" for key, value in differs.items()]


def plain(value: Any) -> str:
    """A parameter's value in one line."""
    if isinstance(value, float):
        return text.number(value)
    return value if isinstance(value, str) else json.dumps(value)


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


def _rank(standing: Standing) -> TableCell:
    return TableCell("—" if standing.rank is None else str(standing.rank), value=standing.rank)


def _score(name: str) -> Callable[[Standing], TableCell]:
    def entry(standing: Standing) -> TableCell:
        score = standing.scores.get(name)
        if score is None or name not in FALSE_ALARMS:
            return score_entry(score)
        value, low, high = (figure(name, number) for number in (score.value, score.low, score.high))
        return TableCell(value, f"{low}–{high}", score.value)

    return entry


def figure(name: str, value: float) -> str:
    """The value of a score: a share with three digits, or a rate of false alarms."""
    return text.number(value) if name in FALSE_ALARMS else text.share(value)


def _threshold(standing: Standing) -> TableCell:
    low, high = min(standing.thresholds), max(standing.thresholds)
    return TableCell(f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}–{high:.2f}", value=low)


def _swept(standing: Standing, value: Callable[[Swept], float], detail: Callable[[Swept], str]) -> TableCell:
    if standing.swept is None:
        return TableCell("—")
    return TableCell(text.share(value(standing.swept)), detail(standing.swept), value(standing.swept))


def _energy(standing: Standing) -> TableCell:
    if standing.energy_joules is None:
        return TableCell("—")
    return TableCell(text.scaled(standing.energy_joules, "J"), value=standing.energy_joules)


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
        row |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    swept = {} if standing.swept is None else {name: getattr(standing.swept, name) for name in SWEPT}
    return row | swept
