"""The finding of a check: a level, a text, a remedy, and the nodes if they differ."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from fissura.operations.doctor.facts import Facts, Seen

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report. `nodes` are the nodes concerned; empty for all."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeFault:
    """What is wrong with one node."""

    level: Literal["warning", "error"]
    text: str
    remedy: str


def faults(check: str, seen: Seen, judge: Callable[[Facts], Iterable[NodeFault]]) -> list[Finding]:
    """The faults that `judge` finds, one line for each with all its nodes."""
    nodes_of: dict[NodeFault, list[str]] = {}
    for node in seen.nodes:
        for fault in judge(node):
            nodes_of.setdefault(fault, []).append(node.node)
    return [
        Finding(
            check,
            fault.level,
            fault.text,
            fault.remedy,
            () if len(nodes) == len(seen.nodes) else tuple(nodes),
        )
        for fault, nodes in nodes_of.items()
    ]


def span(values: Iterable[float], write: Callable[[float], str]) -> str:
    """One value, or the lowest and the highest of several."""
    low, *_, high = ordered if len(ordered := sorted(values)) > 1 else ordered * 2
    return write(low) if write(low) == write(high) else f"{write(low)} to {write(high)}"
