"""What becomes of a trial whose workers failed, without a cluster."""

from pathlib import Path

import pytest
from ray import PlacementGroupID
from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerGroupStartupTimeoutError
from ray.tune.experiment import Trial

from fissura.core.errors import DataError, Diverged
from fissura.distributed.search import trial_workers
from fissura.distributed.search.trial_workers import FreesWorkers, TrialStop, judged, result, waits_for_room
from fissura.distributed.stopping import StopFile


def group(**failures: Exception) -> WorkerGroupError:
    """The error of a group of which `rankN` failed."""
    return WorkerGroupError("failed", {int(rank[4:]): error for rank, error in failures.items()})


def in_the_worker(error: Exception) -> Exception:
    return UserExceptionWithTraceback(error, "Traceback ...")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (in_the_worker(Diverged("the loss is nan")), "the loss is nan"),
        (in_the_worker(DataError("x.png: is torn")), "x.png: is torn"),
        (in_the_worker(MemoryError("no room")), "out of memory"),
        (in_the_worker(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")), "out of memory"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(error: Exception, reason: str) -> None:
    # the other rank only lost its peer
    again, said = judged(group(rank0=in_the_worker(RuntimeError("Connection closed by peer")), rank1=error))
    assert not again
    assert reason in said


def test_a_lost_worker_is_tried_again_and_named() -> None:
    again, said = judged(group(rank1=RayActorError()))
    assert again
    assert "its workers ended: RayActorError" in said


def test_workers_that_wait_for_room_are_no_failure() -> None:
    assert waits_for_room(ControllerError(WorkerGroupStartupTimeoutError(2)))
    assert not waits_for_room(ControllerError(RuntimeError("a bug")))
    assert not waits_for_room(group(rank0=RayActorError()))


def test_what_actors_left_that_were_ended_with_the_search_is_cleared_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(trial_workers, "remove_placement_group", lambda group: removed.append(group.id.hex()))
    groups = {name: PlacementGroupID.from_random().hex() for name in ("1", "2")}
    for name, group in groups.items():
        (tmp_path / "runs" / name / "ray-train").mkdir(parents=True)
        (tmp_path / "runs" / name / "workers").write_text(group)
    (tmp_path / "runs" / "3").mkdir()
    trials = [Trial("x", stub=True, config={"run_id": name}) for name in ("1", "2", "3")]
    FreesWorkers(tmp_path).on_experiment_end(trials)
    assert removed == list(groups.values())
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_trial_is_stopped_with_its_study_or_alone(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "1"
    run.mkdir(parents=True)
    StopFile(run).request()
    assert TrialStop(study=tmp_path, run=run).requested()
    stop = TrialStop(study=tmp_path, run=run)
    stop.clear()
    assert not stop.requested()
    StopFile(tmp_path).request()
    assert TrialStop(study=tmp_path, run=run).requested()


def test_a_result_says_how_the_trial_stands() -> None:
    assert result(failure="why", done=True) == {
        "finished": False, "interrupted": False, "failure": "why", "done": True,
    }  # fmt: skip
