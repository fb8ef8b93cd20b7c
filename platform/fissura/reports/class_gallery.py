"""The pictures of a table of classifiers: where the leader is worst and best, and disturbed images."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, UInt8
from markupsafe import Markup

from fissura.core.errors import UserError
from fissura.records.class_store import CLEAN, ClassRecord, decisions_of
from fissura.reports.classification import ClassRow
from fissura.reports.gallery import WIDTH, Budget, extremes
from fissura.reports.html import part
from fissura.reports.pictures import data_url

RGB = UInt8[np.ndarray, "h w 3"]
LoadUnder = Callable[[str, str, str], RGB]
"""(data set, image name, condition) -> the image as it is, or under the interference that every run sees."""


def class_gallery(
    rows: Sequence[ClassRow],
    records: Sequence[ClassRecord],
    *,
    conditions: Sequence[str],
    load: LoadUnder,
    judge: Callable[[RGB], int] | None,
) -> Markup:
    """The leader's worst, median and best clean image, then one image under each of the other `conditions`.

    Worst is what is furthest on the wrong side of the leader's decision, or nearest to it. Under an
    interference that the leader was evaluated on, its worst image is shown; else its median clean image,
    disturbed, which `judge` (None: nobody) puts into a class.
    """
    leader = next((row for row in rows if row.rank == 1 and row.condition == CLEAN), None)
    if leader is None:
        return part("absent", "No pictures: no configuration classified every clean image.")
    record = next(record for record in records if record.manifest.run_id == leader.run_ids[0])
    clean = _table(record, leader, CLEAN)
    chosen = extremes(_by_name(clean, leader))
    shown = [(label, name, CLEAN) for label, name in chosen]
    median_name = chosen[len(chosen) // 2][1]
    for condition in conditions:
        if condition != CLEAN:
            table = _table(record, leader, condition)
            name = extremes(_by_name(table, leader))[0][1] if len(table) else median_name
            shown.append((condition.replace("_", " ").capitalize(), name, condition))
    pictures = (
        _picture(record, leader, label=label, name=name, condition=condition, load=load, judge=judge)
        for label, name, condition in shown
    )
    title = f"Images of the leader, {leader.recipe}: worst, median and best, and disturbed"
    return part("gallery", title, list(Budget().kept(pictures)), " six")


def margins(table: pa.Table, *, classes: int) -> Float64[np.ndarray, " image"]:
    """How far each image is on the right side of the decision; below 0 it is on the wrong one.

    Of more than two classes the nearest of the decisions between the label and another class counts.
    """
    decisions, labels = decisions_of(table).astype(np.float64), table.column("label").to_numpy()
    if classes == 2:
        # of two classes a decision above 0 speaks for the second, of more for the first of its pair
        return np.where(labels == 1, decisions[:, 0], -decisions[:, 0])
    first, second = np.triu_indices(classes, k=1)
    sides = np.where(labels[:, None] == first, decisions, -decisions)
    own = (labels[:, None] == first) | (labels[:, None] == second)
    nearest: Float64[np.ndarray, " image"] = np.where(own, sides, np.inf).min(axis=1)
    return nearest


def _table(record: ClassRecord, leader: ClassRow, condition: str) -> pa.Table:
    columns = {**leader.test_set._asdict(), "condition": condition}
    kept = np.all([record.table.column(name).to_numpy() == value for name, value in columns.items()], axis=0)
    return record.table.filter(pa.array(kept, pa.bool_()))


def _by_name(table: pa.Table, leader: ClassRow) -> dict[str, float]:
    values = margins(table, classes=len(leader.classes)).tolist()
    return dict(zip(table.column("image").to_pylist(), values, strict=True))


def _picture(
    record: ClassRecord,
    leader: ClassRow,
    *,
    label: str,
    name: str,
    condition: str,
    load: LoadUnder,
    judge: Callable[[RGB], int] | None,
) -> Markup:
    try:
        image = load(leader.test_set.dataset, name, condition)
    except (OSError, UserError, LookupError) as error:
        return part("absent", f"{label}: the image {name} could not be read: {error}")
    rows = {row["image"]: row for row in _table(record, leader, condition).to_pylist()}
    known = rows.get(name) or {
        **next(row for row in _table(record, leader, CLEAN).to_pylist() if row["image"] == name),
        "prediction": None if judge is None else judge(image),
    }
    labelled, predicted = leader.classes[known["label"]], known["prediction"]
    if predicted is None:
        verdict = f"{labelled}; not judged"
    elif predicted == known["label"]:
        verdict = f"{labelled}, rightly"
    else:
        verdict = f"{labelled}, taken for {leader.classes[predicted]}"
    return part("figure", data_url(image, kind="jpeg", width=WIDTH // 2), f"{label}: {verdict} ({name})")
