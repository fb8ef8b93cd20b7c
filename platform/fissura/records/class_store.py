"""The store of classification runs: one Parquet file a run, a row for each image and condition."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32
from pydantic import Field

from fissura.records.manifest import Manifest
from fissura.records.run_table import LIMITS, Record, RunFacts, Runs, RunTable, keys_of
from fissura.records.table import TableFormat

FILE = "classes.parquet"
FACTS_KEY = b"fissura.classes"
KEY = ("data_digest", "split", "condition")
CLEAN = "clean"
"""The condition of images as they are; any other names an interference."""


class ClassifierFacts(RunFacts):
    """What a classification run is beside its manifest.

    `classes` are the names of the levels, the lowest first. The classifier's bytes are those of its file; the
    microseconds are of one image on the machine of the manifest, the classifier's from features on. The
    backbone is counted apart. None: not measured.
    """

    classes: tuple[str, ...] = Field(min_length=2)
    classifier_bytes: int | None = Field(None, ge=0)
    classifier_microseconds: float | None = Field(None, ge=0)
    backbone_bytes: int | None = Field(None, ge=0)
    backbone_microseconds: float | None = Field(None, ge=0)

    def conflict(self, given: RunFacts) -> str:
        """Why rows of a run with other classes cannot join these."""
        if not isinstance(given, ClassifierFacts) or self.classes == given.classes:
            return ""
        return f"its classes are {', '.join(self.classes)}, not {', '.join(given.classes)}"

    def problems(self, table: pa.Table, manifest: Manifest) -> list[str]:
        """Each rule that the rows break, with the first image that breaks it: a decision value that is not
        finite, a label or prediction that is no class, an image twice, a row of another run."""
        if not len(table):
            return []
        broken = {f"its run is {manifest.run_id!r}": table.column("run_id").to_numpy() != manifest.run_id}
        for name in ("label", "prediction"):
            values = table.column(name).to_numpy()
            rule = f"a {name} is 0 to {len(self.classes) - 1}"
            broken[rule] = (values < 0) | (values >= len(self.classes))
        decisions = table.column("decision").combine_chunks()
        widths = decisions.value_lengths().to_numpy()
        broken["every image has as many decision values, at least one"] = widths != max(widths[0], 1)
        finite = np.isfinite(decisions.flatten().to_numpy(zero_copy_only=False))
        row = np.repeat(np.arange(len(table)), widths)
        broken["decision values are finite"] = np.bincount(row[~finite], minlength=len(table)) > 0
        keys = keys_of(table, (*KEY, "image"))
        often = Counter(keys)
        broken["an image stands once under a condition"] = np.array([often[key] > 1 for key in keys])
        images = table.column("image")
        return [
            f"{rule}; {np.count_nonzero(wrong)} of {len(table)} rows break it, "
            f"the first of image {images[int(np.argmax(wrong))].as_py()!r}"
            for rule, wrong in broken.items()
            if wrong.any()
        ]


@dataclass(frozen=True, kw_only=True)
class ClassifiedImage:
    """What a run made of one image; the columns of `classes.parquet`, in order.

    `configuration` is the digest of the recipe without its seed. `condition` is CLEAN or the kind of
    interference put on the image. `group` holds images that belong together: duplicates, and patches of one
    photograph. `label` and `prediction` number the classes from the lowest. `decision` holds the decision
    values, one a pair of classes; of two classes the one is larger where class 1 is likelier. `data_name` is
    what people call the data set; None in runs that were evaluated before it was kept.
    """

    run_id: str
    recipe: str
    configuration: str
    seed: int
    dataset: str
    data_digest: str
    split: str
    condition: str
    image: str
    group: str
    label: int
    prediction: int
    decision: Float[np.ndarray, " pair"] | Sequence[float]
    data_name: str | None = None


LATER = ("data_name",)  # columns that earlier versions did not write
_TYPES = {
    "seed": pa.int64(),
    "label": pa.int32(),
    "prediction": pa.int32(),
    "decision": pa.list_(pa.float32()),
}
SCHEMA = pa.schema(
    [
        pa.field(f.name, _TYPES.get(f.name, pa.string()), nullable=f.name in LATER)
        for f in fields(ClassifiedImage)
    ]
)


ClassRecord = Record[ClassifierFacts]
TABLE = RunTable(
    file=FILE,
    form=TableFormat(
        schema=SCHEMA,
        foreign="its columns are not those of a classification run",
        later=LATER,
        limits=LIMITS,
    ),
    key=KEY,
    facts=ClassifierFacts,
    facts_key=FACTS_KEY,
    facts_name="list of classes",
)


def write_classes(
    run_dir: Path, rows: Iterable[ClassifiedImage], manifest: Manifest, *, facts: ClassifierFacts
) -> Path:
    """Writes `classes.parquet` as `RunTable.write` does, under the rules of `ClassifierFacts.problems`."""
    return TABLE.write(run_dir, rows, manifest, facts)


def read_classes(roots: Sequence[Path]) -> Runs[ClassifierFacts]:
    """Every run of a classification under `roots`, as `RunTable.read_all` finds them."""
    return TABLE.read_all(roots)


def decisions_of(table: pa.Table) -> Float32[np.ndarray, "image pair"]:
    """The decision values of a table of `SCHEMA` as one array."""
    values = table.column("decision").combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float32).reshape(len(table), -1)
