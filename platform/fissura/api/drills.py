"""The verb `drill`: what faults cost on a cluster, tried out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fissura.api.given import AnyPath, path_of
from fissura.core.brief import Rows
from fissura.core.files import check_writable
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.operations.drill.finding import FaultCost


def drill(
    *,
    address: str | None = None,
    storage: AnyPath = Path("studies"),
    faults: Sequence[str] = ("worker", "driver"),
    nodes: Sequence[str] = (),
    say: Say = silent,
) -> "Rows[FaultCost]":
    """Makes faults in the cluster at `address`, on work of its own, and measures what they cost.

    `faults` are "worker", "driver", "head" and "node": the last one ends the `nodes` with these ids for good,
    and a head is only ended where there is no address, of a cluster that is started for it. Without an
    address it starts a Ray on this machine. It works in a folder below `storage`, which all nodes must share,
    and removes it.
    """
    folder = path_of(storage).resolve()
    check_writable(folder)
    from fissura.distributed.environment import check_temporary_folder, prepare_environment

    check_temporary_folder(address)
    prepare_environment(address)
    from fissura.operations.drill.run import run_drill

    found = run_drill(address=address, storage=folder, faults=faults, nodes=nodes, say=say)
    return Rows(found, head=_costs, run=None)


def _costs(findings: "Sequence[FaultCost]") -> list[str]:
    return [
        f"{finding.fault} of {finding.work}: {'passed' if finding.passed else 'failed'}"
        for finding in findings
    ]
