"""The table of failures: what happened, and what becomes of the work."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerGroupStartupTimeoutError

from fissura.core.errors import DataError, Diverged, Interrupted, ResourceError
from fissura.distributed.failure_policy import (
    Decision,
    Event,
    Failure,
    decide,
    of_process,
    of_workers,
    raised,
)
from fissura.distributed.preemption import Preempted
from fissura.distributed.search.failures import LostNodes, decision_of
from fissura.training.out_of_memory import is_out_of_memory

# the event, and what becomes of the work at its first, second and third crash of two that are forgiven
TABLE = [
    (Event.STOPPED, ("requeue", "requeue", "requeue")),
    (Event.PREEMPTED, ("requeue", "requeue", "requeue")),
    (Event.NODE_LOST, ("requeue", "requeue", "requeue")),
    (Event.NO_ROOM, ("requeue", "requeue", "requeue")),
    (Event.CRASHED, ("retry", "retry", "fail")),
    (Event.LOW_ON_MEMORY, ("retry", "retry", "fail")),
    (Event.OUT_OF_MEMORY, ("fail", "fail", "fail")),
    (Event.DIVERGED, ("fail", "fail", "fail")),
    (Event.MISTAKE, ("fail", "fail", "fail")),
    (Event.HUNG, ("fail", "fail", "fail")),
]


def test_the_table_has_every_event() -> None:
    assert [event for event, _ in TABLE] == list(Event)


@pytest.mark.parametrize(("event", "actions"), TABLE, ids=[event.name for event, _ in TABLE])
def test_what_becomes_of_the_work(event: Event, actions: tuple[str, ...]) -> None:
    for crashes, action in enumerate(actions, start=1):
        decision = decide(Failure(event, "why"), crashes=crashes, forgiven=2)
        assert (decision.action, decision.reason) == (action, "why")


def test_only_a_node_that_was_low_on_memory_has_the_images_halved() -> None:
    halved = {event for event in Event if decide(Failure(event, ""), forgiven=1).halve}
    assert halved == {Event.LOW_ON_MEMORY}
    assert decide(Failure(Event.LOW_ON_MEMORY, "full")) == Decision("fail", "full")


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [
        (Preempted("its node is to be taken away"), Event.PREEMPTED, "taken away"),
        (Interrupted("stopped after step 3"), Event.STOPPED, "stopped after step 3"),
        (
            Diverged("the training loss of step 3 is nan"),
            Event.DIVERGED,
            "the training loss of step 3 is nan",
        ),
        (DataError("x.png: is torn"), Event.MISTAKE, "x.png: is torn"),
        (ResourceError("out of memory with one image at a time"), Event.MISTAKE, "with one image at a time"),
        (MemoryError("no room"), Event.OUT_OF_MEMORY, "out of memory (MemoryError: no room); lower"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), Event.OUT_OF_MEMORY, "lower data.batch_size"),
        (ZeroDivisionError("division by zero\nmore"), Event.MISTAKE, "ZeroDivisionError: division by zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_an_exception_says(error: Exception, event: Event, reason: str) -> None:
    failure = raised(error)
    assert failure.event is event
    assert reason in failure.reason
    assert "\n" not in failure.reason


def group(**failures: Exception) -> WorkerGroupError:
    """The error of a group of which `rankN` failed."""
    return WorkerGroupError("failed", {int(rank[4:]): error for rank, error in failures.items()})


def in_the_worker(error: Exception) -> Exception:
    return UserExceptionWithTraceback(error, "Traceback ...")


@pytest.mark.parametrize(
    ("error", "event", "reason"),
    [
        (in_the_worker(Diverged("the loss is nan")), Event.DIVERGED, "the loss is nan"),
        (in_the_worker(DataError("x.png: is torn")), Event.MISTAKE, "x.png: is torn"),
        (in_the_worker(MemoryError("no room")), Event.OUT_OF_MEMORY, "out of memory"),
        (
            in_the_worker(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")),
            Event.OUT_OF_MEMORY,
            "out of memory",
        ),
        (RayActorError(), Event.CRASHED, "its workers ended: RuntimeError: Connection closed"),
    ],
)
def test_of_workers_the_one_that_failed_by_itself_says_why(
    error: Exception, event: Event, reason: str
) -> None:
    # the other rank only lost its peer
    failure = of_workers(group(rank0=in_the_worker(RuntimeError("Connection closed by peer")), rank1=error))
    assert failure.event is event
    assert reason in failure.reason


def test_workers_that_wait_for_room_are_no_failure() -> None:
    assert of_workers(ControllerError(WorkerGroupStartupTimeoutError(2))).event is Event.NO_ROOM
    assert of_workers(ControllerError(RuntimeError("a bug"))).event is Event.CRASHED
    assert of_workers(group(rank0=RayActorError())).event is Event.CRASHED


@pytest.mark.parametrize(
    ("said", "event", "reason"),
    [
        ("The actor died.\nits node has died: lost", Event.NODE_LOST, "its node has died: lost"),
        (
            str(ActorUnavailableError("The actor is temporarily unavailable: RpcError", None)),
            Event.NODE_LOST,
            "temporarily unavailable",
        ),
        ("Traceback\n  its worker process has died.\n", Event.CRASHED, "its worker process has died."),
        (
            "Memory on the node was 7.60GB used / 8.00GB limit, which is running low on memory\nworse",
            Event.LOW_ON_MEMORY,
            "low on memory (7.60GB used / 8.00GB limit), so Ray killed it; lower data.batch_size",
        ),
        ("", Event.CRASHED, "no reason was given"),
    ],
    ids=["node", "unavailable", "process", "memory", "nothing"],
)
def test_what_ray_says_of_a_process(said: str, event: Event, reason: str) -> None:
    failure = of_process(said)
    assert failure.event is event
    assert reason in failure.reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError("Unable to allocate 9 GiB"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_what_a_lack_of_memory_is(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def tune_trial(folder: Path, *said: str, failures: int) -> Any:
    """A trial of Ray Tune's, which forgives one failure, and what Ray said of each."""
    path = folder / "error.txt"
    path.write_text(
        "".join(f"Failure # {number} (occurred at noon)\n{text}\n" for number, text in enumerate(said, 1))
    )
    return SimpleNamespace(error_file=str(path), num_failures=failures, max_failures=1)


CRASH, LOST = "its worker process has died.", "its node has died: lost"


@pytest.mark.parametrize(
    ("said", "failures", "action"),
    [
        ([CRASH], 1, "retry"),
        ([CRASH, CRASH], 2, "fail"),
        ([LOST, CRASH], 1, "retry"),
        ([CRASH, LOST], 2, "requeue"),
        ([], 1, "retry"),
    ],
    ids=["a crash", "two crashes", "a lost node before it", "a lost node after it", "nothing said"],
)
def test_a_trial_of_tune_s_is_decided_by_its_last_failure(
    tmp_path: Path, said: list[str], failures: int, action: str
) -> None:
    assert decision_of(tune_trial(tmp_path, *said, failures=failures)).action == action


@pytest.mark.parametrize(("said", "forgiven"), [(CRASH, 1), (LOST, 2)])
def test_a_lost_node_is_one_failure_more_that_tune_forgives(tmp_path: Path, said: str, forgiven: int) -> None:
    trial = tune_trial(tmp_path, said, failures=1)
    LostNodes().on_trial_recover(0, [trial], trial)
    assert trial.max_failures == forgiven
