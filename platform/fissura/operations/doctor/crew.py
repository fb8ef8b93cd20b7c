"""The nodes to query: those of a Ray cluster, or this machine alone without Ray."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol

from fissura.operations.doctor.facts import Offset, RayResources

ANSWER_SECONDS = 60
Ask = Callable[..., Any]


class Crew(Protocol):
    """`nodes` are the names of those that answer; `silent` maps the others to the reason; they are not
    queried again."""

    silent: dict[str, str]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that answer."""
        ...

    def counted(self, node: str) -> tuple[RayResources | None, str]:
        """What Ray counts on a node, and its session folder; None and empty without Ray."""
        ...

    def ask(self, function: Ask, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The result of `function` on each node, called with the node's own `arguments`."""
        ...

    def at_once(self, first: Ask, second: Ask, folder: str) -> tuple[Any, Any]:
        """Runs two functions of a folder at the same time in two processes, on two nodes if there are two."""
        ...

    def offsets(self) -> dict[str, Offset]:
        """The nodes' clocks."""
        ...


class ThisMachine:
    """This machine alone."""

    def __init__(self) -> None:
        self.nodes: tuple[str, ...] = (socket.gethostname(),)
        self.silent: dict[str, str] = {}

    def counted(self, node: str) -> tuple[RayResources | None, str]:
        """None and empty: there is no Ray."""
        return None, ""

    def ask(self, function: Ask, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The result, computed in this process."""
        return {node: function(*values) for node, values in arguments.items()}

    def at_once(self, first: Ask, second: Ask, folder: str) -> tuple[Any, Any]:
        """Both in processes of their own."""
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            results = [pool.submit(function, folder) for function in (first, second)]
            return results[0].result(ANSWER_SECONDS), results[1].result(ANSWER_SECONDS)

    def offsets(self) -> dict[str, Offset]:
        """None: there is one clock."""
        return {}
