"""A local Ray that does not start in Ray's own time is started again; if it never does, an error says why."""

import ast
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray._private import services
from ray._private.log import PlainRayHandler

import fissura
from fissura.core.errors import ResourceError
from fissura.distributed import cluster
from fissura.distributed.cluster import connected
from fissura.distributed.ray_lines import without_ray_lines

TIMED_OUT = (
    "The current node timed out during startup. This could happen because some of the raylet failed to"
    " startup or the GCS has become overloaded."
)
BEGIN = "starting Ray on this machine"


@pytest.fixture
def folders(monkeypatch, private_rays) -> Path:
    folder = Path(os.environ["RAY_TMPDIR"]) / "f"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    assert not list(folder.iterdir())
    return folder


@pytest.mark.end_to_end
def test_a_ray_that_times_out_is_ended_and_started_again(folders, monkeypatch):
    found, first, said = services.get_node, [], []

    def times_out(*arguments):
        """What Ray's `Node` raises after 30 s, all of its processes being there."""
        if not first:
            node = sys._getframe(1).f_locals["self"]
            first.extend(info.process for infos in node.all_processes.values() for info in infos)
            raise Exception(TIMED_OUT)
        assert all(process.poll() is not None for process in first)
        return found(*arguments)

    monkeypatch.setattr(services, "get_node", times_out)
    monkeypatch.setattr(os, "getloadavg", lambda: (31.26, 8.0, 2.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with connected(None, cpus=1, say=said.append) as resources:
        assert resources.cpus == 1
        assert len(list(folders.iterdir())) == 1
    assert first
    again = "Ray did not start (the machine is busy: load 31.3 on 2 CPUs); trying again, 2 of 3"
    assert said == [BEGIN, again]
    assert list(folders.iterdir()) == []


def test_a_ray_that_never_starts_is_an_error_with_its_cause_and_remedy(folders, monkeypatch):
    said: list[str] = []

    def times_out(**_):
        raise Exception(TIMED_OUT)

    monkeypatch.setattr(ray, "init", times_out)
    monkeypatch.setattr(os, "getloadavg", lambda: (31.26, 8.0, 2.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(ResourceError) as error, connected(None, say=said.append):
        pass
    assert str(error.value) == (
        f"Ray did not start on this machine, 3 times ({TIMED_OUT}); the machine is busy: load 31.3 on 2 CPUs:"
        " end other work or wait for its end, then run the command again, or run it on a cluster with"
        " --address"
    )
    assert said[0] == BEGIN
    assert [line[-6:] for line in said[1:]] == ["2 of 3", "3 of 3"]
    assert list(folders.iterdir()) == []


def test_what_no_second_start_mends_is_not_started_again(folders, monkeypatch):
    said: list[str] = []

    def refuses(**_):
        raise TypeError("Ray changed")

    monkeypatch.setattr(ray, "init", refuses)
    with pytest.raises(TypeError) as error, connected(None, say=said.append):
        pass
    assert said == [BEGIN]
    (left,) = folders.iterdir()
    assert error.value.__notes__ == [f"Ray's logs are in {left}"]
    left.joinpath("s").rmdir()
    left.rmdir()


def test_a_cluster_and_a_ray_that_stands_are_joined_in_silence(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster, "_resources", cluster.this_machine)
    with connected(None, say=said.append):
        pass
    assert said == []


def test_the_lines_of_ray_s_python_go_to_the_log():
    logged: list[str] = []
    own, printing = logging.getLogger("ray._private.services"), PlainRayHandler.emit
    with without_ray_lines(logged.append):
        own.error("Failed to start the dashboard\nPlease report an issue to Ray github.")
    assert [line.partition(" -- ")[2] for line in logged] == [
        "Failed to start the dashboard Please report an issue to Ray github."
    ]
    assert PlainRayHandler.emit is printing


def test_every_command_that_starts_a_ray_says_so():
    """`doctor` and `drill` join what stands at an address."""
    platform = Path(fissura.__file__).parent
    calls = [
        (path.relative_to(platform).as_posix(), call)
        for path in sorted(platform.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "connected"
    ]
    silent = {path for path, call in calls if "say" not in {word.arg for word in call.keywords}}
    assert silent == {"operations/doctor/diagnose.py", "operations/drill/head.py"}
    assert len(calls) > len(silent)


@pytest.mark.end_to_end
def test_what_the_cluster_tells_of_dead_workers_goes_to_the_log_and_not_to_standard_output(tmp_path):
    program = (
        "import os, ray, time\n"
        "from pathlib import Path\n"
        "from fissura.distributed.cluster import connected\n"
        "from fissura.distributed.search.study_log import StudyLog\n"
        "from fissura.studies.study import Study\n"
        "study = Study(Path('it')); study.path.mkdir()\n"
        "with connected(None, cpus=1, log=StudyLog(study).note):\n"
        "    dies = ray.remote(max_retries=0)(lambda: os.kill(os.getpid(), 9))\n"
        "    try: ray.get(dies.remote())\n"
        "    except ray.exceptions.WorkerCrashedError: pass\n"
        "    until = time.monotonic() + 60\n"
        "    while time.monotonic() < until:\n"
        "        log = Path('it/search.log')\n"
        "        if log.is_file() and '(raylet)' in log.read_text(): break\n"
        "        time.sleep(0.1)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("", "")
    assert re.search(
        r"^\S+ Ray: \(raylet\) .*worker (died|process)", (tmp_path / "it/search.log").read_text(), re.M | re.I
    )
