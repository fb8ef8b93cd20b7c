"""What the data sets that runs were scored on are called."""

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from fissura.records.manifest import Manifest


class Record(Protocol):
    """A run as read from the disk, of either task."""

    @property
    def manifest(self) -> Manifest:
        """What produced the run."""

    @property
    def table(self) -> pa.Table:
        """Its rows, with the columns `dataset`, `data_digest` and `data_name`."""


def data_names(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """The name of each data set by its label and digest: of several names of one content the first."""
    names: dict[tuple[str, str], str] = {}
    for record in records:
        columns = [record.table.column(name).to_pylist() for name in ("dataset", "data_digest", "data_name")]
        for label, digest, name in dict.fromkeys(zip(*columns, strict=True)):
            names.setdefault((label, digest), name or record.manifest.data.name(label, digest=digest))
    return names
