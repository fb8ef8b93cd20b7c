"""The verb `doctor`: whether the nodes of a cluster, or this machine, are fit for a search."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fissura.api.arguments import AnyPath, Data, maybe_path, named_in, path_of
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
    """The findings of every check on all nodes of the cluster at `address`.

    Without an address, and without RAY_ADDRESS, it checks this machine alone and starts no Ray.

    Every node writes small files to `storage`, which are removed again, and reads `data`.

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
    datasets, cache_folder = named_in(data), maybe_path(cache) or default_cache()
    sources = parse_either(datasets) if datasets else ()
    findings = diagnose(address=address, storage=folder, cache=cache_folder, sources=sources, say=say)
    return Rows(findings, head=_levels, run=None)


def _levels(findings: "Sequence[Finding]") -> list[str]:
    return [f"{finding.level}: {finding.check}: {finding.text}" for finding in findings]
