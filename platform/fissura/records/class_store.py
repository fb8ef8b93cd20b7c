"""The store of classification runs: one Parquet file a run, a row for each image and condition."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Float32
from pydantic import Field

from fissura.core.documents import parse_json
from fissura.core.errors import DataError, SpecError
from fissura.core.spec import Spec
from fissura.records.manifest import Manifest
from fissura.records.run_files import rewriting, table_fault
from fissura.records.store import METADATA_KEY, Skipped
from fissura.records.table_file import NotARun, TooMuch, open_table, read_table, schema_of

S = TypeVar("S", bound=Spec)

FILE = "classes.parquet"
FACTS_KEY = b"fissura.classes"
CLEAN = "clean"
"""The condition of images as they are; any other names an interference."""


class ClassifierFacts(Spec):
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
    decision: Float[np.ndarray, "pair"] | Sequence[float]
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
KEY = ("data_digest", "split", "condition")


@dataclass(frozen=True)
class ClassRecord:
    """One run as read from the disk: its directory, manifest, facts, and rows as a table of `SCHEMA`."""

    directory: Path
    manifest: Manifest
    facts: ClassifierFacts
    table: pa.Table


class ClassRuns(NamedTuple):
    """What `read_classes` found: the runs, sorted by directory, and the files that it passed over."""

    records: list[ClassRecord]
    skipped: list[Skipped]


def write_classes(
    run_dir: Path, rows: Iterable[ClassifiedImage], manifest: Manifest, *, facts: ClassifierFacts
) -> Path:
    """Writes `classes.parquet`, whole or not at all, and gives its path.

    Rows that stand there already are kept, but for those of a (data digest, split, condition) that `rows`
    holds anew. A run directory has one writer at a time.

    Raises:
        DataError: a decision value that is not finite, a label or prediction that is no class, an image
            twice, a row of another run; or the file that stands there is no run, or another's.
    """
    path = run_dir / FILE
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    if path.exists():
        table = _merged(path, table, manifest, facts)
    problems = _problems(table, manifest, facts)
    if problems:
        raise DataError(*(f"{path}: {problem}; nothing was written" for problem in problems))
    plain = {METADATA_KEY: manifest.origin, FACTS_KEY: facts.plain()}
    metadata = {key: json.dumps(value, sort_keys=True).encode() for key, value in plain.items()}
    with rewriting(run_dir, FILE) as scratch:
        pq.write_table(table.replace_schema_metadata(metadata), scratch, compression="zstd")
    return path


def _merged(path: Path, table: pa.Table, manifest: Manifest, facts: ClassifierFacts) -> pa.Table:
    try:
        standing = _read(path)
    except NotARun as error:
        raise DataError(f"{path}: {error}; move it away, then write the run again") from None
    if standing.manifest.run_id != manifest.run_id:
        held, given = standing.manifest.run_id, manifest.run_id
        raise DataError(f"{path}: it holds run {held!r}, not {given!r}; choose another directory")
    if standing.facts.classes != facts.classes:
        held, given = ", ".join(standing.facts.classes), ", ".join(facts.classes)
        raise DataError(f"{path}: its classes are {held}, not {given}; choose another directory")
    renewed = set(_keys(table, KEY))
    kept = [key not in renewed for key in _keys(standing.table, KEY)]
    return pa.concat_tables([standing.table.filter(pa.array(kept, pa.bool_())), table])


def read_classes(roots: Sequence[Path]) -> ClassRuns:
    """Every classification run under `roots`: run directories, study directories or files, each run once.

    A torn or foreign file is passed over, and named in `skipped`.

    Raises:
        DataError: with every root that does not exist.
    """
    missing = [root for root in roots if not root.exists()]
    if missing:
        raise DataError(*(f"{root}: no such run or study directory" for root in missing))
    found = {path.resolve() for root in roots for path in ([root] if root.is_file() else root.rglob(FILE))}
    records, skipped = [], []
    for path in sorted(found):
        try:
            records.append(_read(path))
        except NotARun as error:
            skipped.append(Skipped(path, str(error)))
    return ClassRuns(records, skipped)


def _read(path: Path) -> ClassRecord:
    if fault := table_fault(path):
        raise NotARun(fault)
    try:
        with open_table(path, schema=SCHEMA) as file:
            schema = schema_of(file)
            # Nullability and metadata may differ between writers; the names and types may not.
            lacking = [name for name in LATER if name not in schema.names]
            known = pa.schema([field for field in SCHEMA if field.name not in lacking])
            if schema.names != known.names or schema.types != known.types:
                raise NotARun("its columns are not those of a classification run")
            manifest = _spec(Manifest, schema.metadata, METADATA_KEY)
            facts = _spec(ClassifierFacts, schema.metadata, FACTS_KEY)
            table = read_table(file, schema=SCHEMA)
    except TooMuch as error:
        raise NotARun(str(error)) from None
    except (pa.ArrowException, OSError, ValueError) as error:  # a null is a plain ValueError
        raise NotARun(f"it is not a whole Parquet file ({str(error).splitlines()[0]})") from None
    problems = _problems(table, manifest, facts)
    if problems:
        raise NotARun(problems[0])
    return ClassRecord(path.parent, manifest, facts, table)


def _spec(kind: type[S], metadata: dict[bytes, bytes] | None, key: bytes) -> S:
    text = (metadata or {}).get(key)
    name = "manifest" if key == METADATA_KEY else "list of classes"
    if text is None:
        raise NotARun(f"it carries no {name} of a run")
    try:
        return kind.load(parse_json(text), source=name)
    except (SpecError, ValueError) as error:
        raise NotARun(f"its {name} is not valid ({str(error).splitlines()[0]})") from None


def _problems(table: pa.Table, manifest: Manifest, facts: ClassifierFacts) -> list[str]:
    """Each rule that the rows break, with the first image that breaks it."""
    if not len(table):
        return []
    broken = {f"its run is {manifest.run_id!r}": table.column("run_id").to_numpy() != manifest.run_id}
    for name in ("label", "prediction"):
        values = table.column(name).to_numpy()
        rule = f"a {name} is 0 to {len(facts.classes) - 1}"
        broken[rule] = (values < 0) | (values >= len(facts.classes))
    decisions = table.column("decision").combine_chunks()
    widths = decisions.value_lengths().to_numpy()
    broken["every image has as many decision values, at least one"] = widths != max(widths[0], 1)
    finite = np.isfinite(decisions.flatten().to_numpy(zero_copy_only=False))
    row = np.repeat(np.arange(len(table)), widths)
    broken["decision values are finite"] = np.bincount(row[~finite], minlength=len(table)) > 0
    keys = _keys(table, (*KEY, "image"))
    often = Counter(keys)
    broken["an image stands once under a condition"] = np.array([often[key] > 1 for key in keys])
    images = table.column("image")
    return [
        f"{rule}; {np.count_nonzero(wrong)} of {len(table)} rows break it, "
        f"the first of image {images[int(np.argmax(wrong))].as_py()!r}"
        for rule, wrong in broken.items()
        if wrong.any()
    ]


def _keys(table: pa.Table, names: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def decisions_of(table: pa.Table) -> Float32[np.ndarray, "image pair"]:
    """The decision values of a table of `SCHEMA` as one array."""
    values = table.column("decision").combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float32).reshape(len(table), -1)
