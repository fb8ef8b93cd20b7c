"""What becomes of a trial whose workers failed, without a cluster."""

from pathlib import Path

import pytest
from ray import PlacementGroupID
from ray.tune.experiment import Trial

from fissura.distributed.search import trial_workers
from fissura.distributed.search.trial_workers import FreesWorkers, TrialStop, result
from fissura.distributed.stopping import StopFile


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
