"""The failure policy: maps a failure to retry, requeue or fail, as data.

The trials of a search and the launches of Ray Train carry out its decisions, each in its own way.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerGroupStartupTimeoutError

from fissura.core.errors import Diverged, FissuraError, Interrupted, named
from fissura.training.out_of_memory import is_out_of_memory

# part of Ray's message when its memory monitor kills a worker
LOW_ON_MEMORY = "running low on memory"
# parts of Ray's message about an actor on a lost node, once the node is known to be dead and before; its
# message about a process that died is "its worker process has died"
LOST_NODE_MESSAGES = ("its node has died", "temporarily unavailable")


class Event(StrEnum):
    """What happened to a piece of work."""

    STOPPED = "a stop was asked for"
    PREEMPTED = "its node is to be taken away"
    NODE_LOST = "its node was lost"
    NO_ROOM = "the cluster has no room for it yet"
    CRASHED = "its process ended"
    LOW_ON_MEMORY = "its node was low on memory, and Ray killed it"
    OUT_OF_MEMORY = "it does not fit the memory"
    DIVERGED = "a value is not a number"
    MISTAKE = "it raised what it would raise again"
    HUNG = "it made no progress"


@dataclass(frozen=True)
class Failure:
    """What happened, and the reason in one line."""

    event: Event
    reason: str


@dataclass(frozen=True)
class Decision:
    """What to do with the work. `retry`: resume from the last checkpoint; `requeue`: the same, when and where
    there is room, and without counting a crash; `fail`. `halve`: with half the micro-batch."""

    action: Literal["retry", "requeue", "fail"]
    reason: str
    halve: bool = False


def decide(failure: Failure, *, crashes: int = 1, forgiven: int = 0) -> Decision:
    """Decides about work that has crashed `crashes` times, this time included; `forgiven` crashes are
    retried."""
    match failure.event:
        case Event.STOPPED | Event.PREEMPTED | Event.NODE_LOST | Event.NO_ROOM:
            return Decision("requeue", failure.reason)
        case Event.CRASHED | Event.LOW_ON_MEMORY if crashes <= forgiven:
            return Decision("retry", failure.reason, halve=failure.event is Event.LOW_ON_MEMORY)
        case _:
            return Decision("fail", failure.reason)


def raised(error: BaseException) -> Failure:
    """The failure that an exception of the work itself reports."""
    match error:
        case RayActorError(preempted=True):
            return Failure(Event.PREEMPTED, str(error))
        case Interrupted():
            return Failure(Event.STOPPED, str(error))
        case Diverged():
            return Failure(Event.DIVERGED, str(error))
        case FissuraError():
            return Failure(Event.MISTAKE, str(error))
        case _ if is_out_of_memory(error):
            return Failure(
                Event.OUT_OF_MEMORY, f"out of memory ({named(error)}); lower data.batch_size or the crop"
            )
        case _:
            return Failure(Event.MISTAKE, named(error))


def of_workers(error: Exception) -> Failure:
    """The failure that ended the workers of Ray Train. A worker that fails ends the others, which then report
    only that they lost a peer."""
    if isinstance(error, ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupTimeoutError
    ):
        return Failure(Event.NO_ROOM, "the cluster has no room for its workers yet")
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else [error]
    causes = [
        failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure
        for failure in failures
    ]
    for cause in causes:
        if isinstance(cause, FissuraError) or is_out_of_memory(cause):
            return raised(cause)
    return Failure(Event.CRASHED, f"its workers ended: {named(causes[0])}")


def of_process(message: str) -> Failure:
    """The failure that ended a process, from Ray's message about it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no reason was given"
    if any(text in message for text in LOST_NODE_MESSAGES):
        return Failure(Event.NODE_LOST, last)
    if memory := [line for line in lines if LOW_ON_MEMORY in line]:
        used = re.search(r"[\d.]+GB used / [\d.]+GB limit", memory[0])
        return Failure(
            Event.LOW_ON_MEMORY,
            f"its node was low on memory ({used[0] if used else memory[0][:200]}), so Ray killed it; lower"
            " data.batch_size or the crop, or have fewer trials at a time with --concurrency",
        )
    return Failure(Event.CRASHED, last)
