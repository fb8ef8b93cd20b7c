"""What becomes of work that ended badly: what happened goes in; retry, requeue or fail comes out, as data.

The trials of a search and the launches of Ray Train do as they are told here, each in its own way.
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

# in what Ray says when its memory monitor kills a worker
LOW_ON_MEMORY = "running low on memory"
# what Ray says of the actor, once the node is known to be dead and before; of a process that died it says
# "its worker process has died"
SAID_OF_LOST_NODES = ("its node has died", "temporarily unavailable")


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
    """What happened, and what is known of it, in one line."""

    event: Event
    reason: str


@dataclass(frozen=True)
class Decision:
    """What to do with the work. `retry`: begin again from the last state; `requeue`: the same, when and where
    there is room, and it counts as no crash; `fail`. `halve`: with half as many images at a time."""

    action: Literal["retry", "requeue", "fail"]
    reason: str
    halve: bool = False


def decide(failure: Failure, *, crashes: int = 1, forgiven: int = 0) -> Decision:
    """What becomes of work that has crashed `crashes` times, this time included, of which so many are
    `forgiven`."""
    match failure.event:
        case Event.STOPPED | Event.PREEMPTED | Event.NODE_LOST | Event.NO_ROOM:
            return Decision("requeue", failure.reason)
        case Event.CRASHED | Event.LOW_ON_MEMORY if crashes <= forgiven:
            return Decision("retry", failure.reason, halve=failure.event is Event.LOW_ON_MEMORY)
        case _:
            return Decision("fail", failure.reason)


def raised(error: BaseException) -> Failure:
    """What an exception of the work itself says."""
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
    """What ended the workers of Ray Train. One that fails takes the others with it, which then say only that
    they lost a peer."""
    if isinstance(error, ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupTimeoutError
    ):
        return Failure(Event.NO_ROOM, "the cluster has no room for its workers yet")
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else [error]
    causes = [one._base_exc if isinstance(one, UserExceptionWithTraceback) else one for one in failures]
    for cause in causes:
        if isinstance(cause, FissuraError) or is_out_of_memory(cause):
            return raised(cause)
    return Failure(Event.CRASHED, f"its workers ended: {named(causes[0])}")


def of_process(said: str) -> Failure:
    """What ended a process, by what Ray says of it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no reason was given"
    if any(words in said for words in SAID_OF_LOST_NODES):
        return Failure(Event.NODE_LOST, last)
    if memory := [line for line in lines if LOW_ON_MEMORY in line]:
        used = re.search(r"[\d.]+GB used / [\d.]+GB limit", memory[0])
        return Failure(
            Event.LOW_ON_MEMORY,
            f"its node was low on memory ({used[0] if used else memory[0][:200]}), so Ray killed it; lower"
            " data.batch_size or the crop, or have fewer trials at a time with --concurrency",
        )
    return Failure(Event.CRASHED, last)
