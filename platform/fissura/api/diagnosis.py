"""The verb `doctor`: whether the nodes of a cluster, or this machine, are fit for a search."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fissura.core.errors import DataError

if TYPE_CHECKING:
    from fissura.jobs.doctor.findings import Finding


def doctor(
    *,
    address: str | None = None,
    storage: Path | None = None,
    data: Sequence[str] = (),
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> "list[Finding]":
    """What every check says of all nodes of the cluster at `address`.

    Without one, and without RAY_ADDRESS, it looks at this machine alone, and starts no Ray.

    `storage` is tried from every node with small files, of which none stays; `data` is read by every node.

    Raises:
        UserError: no cluster answers, or a data set or folder is not there.
    """
    from fissura.data.cache import default_cache
    from fissura.data.datasets import kinds
    from fissura.jobs.doctor.diagnose import diagnose
    from fissura.studies.sources import parse_sources

    folder = None if storage is None else storage.expanduser().resolve()
    if folder is not None and not folder.is_dir():
        raise DataError(
            f"--storage {storage}: no folder lies there; make it, or name the one of your studies"
        )
    masked = [text for text in data if text.partition(":")[0] in kinds()]
    labelled = [text for text in data if text not in masked]
    sources = (
        *(parse_sources(masked, task="segmentation") if masked else ()),
        *(parse_sources(labelled, task="classification") if labelled else ()),
    )
    return diagnose(address=address, storage=folder, cache=cache or default_cache(), sources=sources, say=say)
