"""The verb `drill`, as a function: measures what faults cost on a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fissura.api.arguments import AnyPath, path_of
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
    """Injects faults into the cluster at `address`, during work of its own, and measures their cost.

    `faults` are "worker", "driver", "head" and "node". "node" ends the `nodes` with these ids for good.
    "head" needs `address` to be None: it ends the head of a cluster that it starts itself. Without an address
    the drill starts a Ray on this machine. It works in a folder below `storage`, which all nodes must share,
    and removes it.
    """
    folder = path_of(storage).resolve()
    check_writable(folder)
    from fissura.distributed.environment import check_temporary_folder, prepare_environment

    check_temporary_folder(address)
    prepare_environment(address)
    from fissura.operations.drill.run import run_drill

    findings = run_drill(address=address, storage=folder, faults=faults, nodes=nodes, say=say)
    return Rows(findings, head=_costs, run=None)


def _costs(findings: "Sequence[FaultCost]") -> list[str]:
    return [
        f"{finding.fault} of {finding.work}: {'passed' if finding.passed else 'failed'}"
        for finding in findings
    ]
