"""Who is asked: the nodes of a Ray cluster, or this machine alone without a Ray."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol

from fissura.operations.doctor.facts import Offset, RayResources

PATIENCE_SECONDS = 60
Ask = Callable[..., Any]


class Crew(Protocol):
    """`nodes` answer, by name; those in `silent` gave a reason instead, and are asked no more."""

    silent: dict[str, str]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that answer."""
        ...

    def counted(self, node: str) -> tuple[RayResources | None, str]:
        """What Ray counts on a node, and its session folder; None and empty without a Ray."""
        ...

    def ask(self, function: Ask, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """What `function` answers on each node, given the node's own `arguments`."""
        ...

    def at_once(self, first: Ask, second: Ask, folder: str) -> tuple[Any, Any]:
        """Two functions of a folder at the same time in two processes, of two nodes where there are two."""
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
        """Nothing: no Ray is asked."""
        return None, ""

    def ask(self, function: Ask, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The answers, in this process."""
        return {node: function(*own) for node, own in arguments.items()}

    def at_once(self, first: Ask, second: Ask, folder: str) -> tuple[Any, Any]:
        """Both in processes of their own."""
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            begun = [pool.submit(function, folder) for function in (first, second)]
            return begun[0].result(PATIENCE_SECONDS), begun[1].result(PATIENCE_SECONDS)

    def offsets(self) -> dict[str, Offset]:
        """None: there is one clock."""
        return {}
