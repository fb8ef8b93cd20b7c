"""The guide's commands on real hosts: `ray up`, `status`, `exec`, `rsync-up`, `job submit`, `down`."""

import re
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from cluster.conftest import RayUp, as_user
from cluster.forms import GUIDE
from cluster.hosts import HOME, wait_for
from fissura.records.run_files import read_manifest
from fissura.studies.study import Study

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


def test_ray_status_shows_three_nodes_and_a_head_that_takes_no_trials(cluster: RayUp) -> None:
    three = re.compile(r"^ 3 local\.cluster\.node$", re.MULTILINE)
    # the autoscaler counts a node when it has seen it start
    wait_for(lambda: three.search(cluster.execute("ray status")), seconds=300, what="3 nodes in `ray status`")
    free = cluster.cpus()
    assert free.pop(cluster.head.address) == 0
    assert set(free) == {worker.address for worker in cluster.workers}
    assert all(free.values())


def test_ray_exec_runs_on_the_head_with_the_code_that_was_sent(cluster: RayUp) -> None:
    said = cluster.execute("hostname; python -c 'import fissura; print(fissura.__file__)'")
    assert "head" in said.split()
    assert f"{HOME}/fissura/platform/fissura/__init__.py" in said


def test_the_trials_of_a_search_run_on_both_workers_and_its_results_are_whole(
    cluster: RayUp, searched: Path
) -> None:
    trials = Study(searched).load().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    runs = {trial.user_attrs["run"] for trial in trials}
    manifests = [read_manifest(searched / "runs" / run) for run in runs]
    assert {manifest.host for manifest in manifests} == {worker.name for worker in cluster.workers}
    assert len(list(searched.glob("runs/*/run.parquet"))) >= 3, "the best runs are scored"
    assert (searched / "report.html").is_file()
    assert (searched / "leaderboard.md").is_file()


def test_each_host_prepares_the_data_once_in_a_folder_of_its_own_named_by_content(
    cluster: RayUp, searched: Path
) -> None:
    caches = {
        host.name: [
            place.name
            for place in host.path(f"{HOME}/.cache/fissura").iterdir()
            if (place / "pixels.bin").is_file()
        ]
        for host in cluster.hosts
    }
    assert caches.keys() == {"head", "worker-1", "worker-2"}
    [name] = {name for names in caches.values() for name in names}
    assert re.fullmatch("[0-9a-f]{16}", name)
    assert all(names == [name] for names in caches.values())
    devices = {host.path(f"{HOME}/.cache/fissura").stat().st_dev for host in cluster.hosts}
    assert len(devices) == 3, "three file systems"


def test_a_search_goes_on_when_a_worker_is_lost_and_the_cluster_starts_it_again(
    cluster: RayUp, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(searched.with_name("lost"))
    search = cluster.launcher.start(
        as_user(
            "exec ray exec cluster.yaml 'fissura search small_unet --data synthetic:/shared/bridge"
            " --name lost --address auto --trials 8 --storage /shared/studies --profile demo"
            " --set data.crop.size=32 --set epochs=4 --set data.crop.per_image=64'"
        ),
        log=tmp_path / "search.log",
    )
    try:
        lost = wait_for(
            lambda: next((host for host in cluster.workers if host.processes("ray::TrialActor")), None),
            seconds=400,
            what="a trial on a worker",
        )
        assert lost is not None
        before = lost.run("pidof raylet").stdout
        lost.run(f"kill -9 {before}")
        begin = time.monotonic()
        wait_for(
            lambda: lost.run("pidof raylet", check=False).stdout not in {"", before},
            seconds=300,
            what=f"a new raylet on {lost.name}",
        )
        with capsys.disabled():
            print(f"\nraylet killed: a new one after {time.monotonic() - begin:.0f} s")  # noqa: T201
        wait_for(
            lambda: lost.address in cluster.cpus(), seconds=300, what=f"the return of {lost.name}", every=5
        )
        assert search.wait(timeout=600) == 0, (tmp_path / "search.log").read_text()
    finally:
        search.kill()
        search.wait()
    trials = study.load().trials
    assert len(trials) == 8
    assert all(trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for trial in trials)
    assert not [trial for trial in trials if "reason" in trial.user_attrs], "none is told as failed"


def test_ray_down_and_the_guide_s_ray_stop_leave_no_process_of_ray_on_any_host(cluster: RayUp) -> None:
    """The last test of this folder: it ends the cluster of them all."""
    assert all(host.processes("ray") for host in cluster.hosts)
    cluster.user("ray down -y cluster.yaml", seconds=400)
    [stop] = [line for line in GUIDE.splitlines() if "env/bin/ray stop" in line]
    cluster.user(f"printf 'StrictHostKeyChecking accept-new\n' > ~/.ssh/config; {stop}")
    for host in cluster.hosts:
        wait_for(
            lambda host=host: not host.processes("ray"), seconds=120, what=f"the end of Ray on {host.name}"
        )
