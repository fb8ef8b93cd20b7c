"""All checks, in the order of the report; each is a function of the facts."""

from collections.abc import Callable

from fissura.operations.doctor import cluster_checks as between
from fissura.operations.doctor import machine_checks as machine
from fissura.operations.doctor import software_checks as software
from fissura.operations.doctor.facts import Seen
from fissura.operations.doctor.findings import Finding

CHECKS: tuple[Callable[[Seen], list[Finding]], ...] = (
    software.nodes,
    software.versions,
    software.standard_platform,
    software.ray_address,
    between.tokens,
    between.ports,
    machine.sockets,
    between.storage,
    machine.disk,
    between.clocks,
    machine.cpus,
    machine.threads,
    machine.gpus,
    machine.memory,
    machine.shared_memory,
    machine.open_files,
    software.tools,
    between.data,
)


def judge(seen: Seen) -> list[Finding]:
    """The findings of every check, at least one each."""
    return [finding for check in CHECKS for finding in check(seen)]
