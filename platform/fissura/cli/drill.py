"""The command `drill`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import AddressOption

if TYPE_CHECKING:
    from fissura.operations.drill.finding import FaultCost


def drill(
    storage: Annotated[
        Path, typer.Option(help="A folder that all nodes share; the drill works in a new one below it.")
    ] = Path("studies"),
    faults: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="What is to happen: `worker`, `driver`, `head` (of a cluster of its own), `node`.",
        ),
    ] = "worker,driver",
    node: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE_ID", help="For `node`: a node that is ended for good; may be repeated, once a work."
        ),
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Kill workers, drivers and nodes in the middle of small searches and trainings, and tell what it cost.

    Only processes of the drill's own are ended, and nodes that are named. Best on a cluster with nothing else
    on it: what others take meanwhile looks like resources that did not come back.

    Example: [bold]fissura drill --address auto --storage /shared/studies[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.working():
        findings = api.drill(
            address=address,
            storage=storage,
            faults=[fault.strip() for fault in faults.split(",") if fault.strip()],
            nodes=node or (),
            say=console.say,
        )
    passed = all(finding.passed for finding in findings)
    console.result(
        {"passed": passed, "findings": [finding.plain() for finding in findings]},
        lambda: drill_text(findings),
    )
    if not passed:
        raise typer.Exit(1)


def drill_text(findings: "list[FaultCost]") -> str:
    """The findings as a table, followed by the problems."""
    problems = [
        f"{finding.fault}, {finding.work}: {problem}" for finding in findings for problem in finding.problems
    ]
    return "\n".join([table([_row(finding) for finding in findings]), *problems])


def _row(finding: "FaultCost") -> dict[str, Any]:
    return {
        "fault": finding.fault,
        "work": finding.work,
        "passed": "yes" if finding.passed else "NO",
        "seconds to recovery": _seconds(finding.seconds),
        "epochs lost": finding.epochs_lost,
        "trials lost": finding.trials_lost,
        "trials run twice": finding.trials_repeated,
        "seconds until resources are back": _seconds(finding.resources_seconds),
    }


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"
