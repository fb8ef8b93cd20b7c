"""The names of the data sets that runs were scored on."""

from collections.abc import Sequence
from typing import Any

from fissura.records.run_table import Record


def data_names(records: Sequence[Record[Any]]) -> dict[tuple[str, str], str]:
    """The name of each data set by its label and digest: of several names of one content the first."""
    names: dict[tuple[str, str], str] = {}
    for record in records:
        columns = [record.table.column(name).to_pylist() for name in ("dataset", "data_digest", "data_name")]
        for label, digest, name in dict.fromkeys(zip(*columns, strict=True)):
            names.setdefault((label, digest), name or record.manifest.data.name(label, digest=digest))
    return names
