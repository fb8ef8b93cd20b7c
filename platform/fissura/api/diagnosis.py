"""The verb `doctor`: whether the nodes of a cluster, or this machine, are fit for a search."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fissura.api.given import AnyPath, Data, maybe_path, named_in, path_of
from fissura.core.brief import Rows
from fissura.core.errors import DataError
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.operations.doctor.findings import Finding


def doctor(
    *,
    address: str | None = None,
    storage: AnyPath | None = None,
    data: Data = (),
    cache: AnyPath | None = None,
    say: Say = silent,
) -> "Rows[Finding]":
    """What every check says of all nodes of the cluster at `address`.

    Without one, and without RAY_ADDRESS, it looks at this machine alone, and starts no Ray.

    `storage` is tried from every node with small files, of which none stays; `data` is read by every node.

    Raises:
        UserError: no cluster answers, or a data set or folder is not there.
    """
    from fissura.data.cache import default_cache
    from fissura.data.sources import parse_either
    from fissura.operations.doctor.diagnose import diagnose

    folder = None if storage is None else path_of(storage).resolve()
    if folder is not None and not folder.is_dir():
        raise DataError(
            f"--storage {storage}: no folder lies there; make it, or name the one of your studies"
        )
    named, kept = named_in(data), maybe_path(cache) or default_cache()
    sources = parse_either(named) if named else ()
    found = diagnose(address=address, storage=folder, cache=kept, sources=sources, say=say)
    return Rows(found, head=_levels, run=None)


def _levels(findings: "Sequence[Finding]") -> list[str]:
    return [f"{finding.level}: {finding.check}: {finding.text}" for finding in findings]
