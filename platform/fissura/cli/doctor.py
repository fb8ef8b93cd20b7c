"""The command `doctor`: one line for each check, with the remedy."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fissura.cli.console import Console, JsonOption
from fissura.cli.options import CacheOption
from fissura.core.text import count

if TYPE_CHECKING:
    from fissura.operations.doctor.findings import Finding


def doctor(
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="A Ray cluster or `auto`; by default RAY_ADDRESS, or this machine alone."
        ),
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of studies, tried from every node.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="KIND:ROOT", help="Read by every node; may be repeated."),
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every node of a cluster, or this machine: versions, storage, clocks, ports, tokens, GPUs,
    threads, limits, data. Each line says what was found and what to do.

    Exit code 1 where an error was found; warnings leave it 0.

    Example: [bold]fissura doctor --address auto --storage /shared/studies[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.working():
        findings = api.doctor(address=address, storage=storage, data=data or (), cache=cache, say=console.say)
    counts = {
        level: sum(finding.level == level for finding in findings) for level in ("ok", "warning", "error")
    }
    console.result(
        {"counts": counts, "findings": [asdict(finding) for finding in findings]},
        lambda: _text(findings, counts),
    )
    if counts["error"]:
        raise typer.Exit(1)


def _text(findings: "list[Finding]", counts: dict[str, int]) -> str:
    lines = []
    for finding in findings:
        nodes = f"{', '.join(finding.nodes)}: " if finding.nodes else ""
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        lines.append(f"{finding.level:8} {finding.check + ':':15} {nodes}{finding.text}{remedy}")
    found = ", ".join(count(counts[level], level) for level in ("warning", "error"))
    return "\n".join([*lines, f"{counts['ok']} ok, {found}"])
