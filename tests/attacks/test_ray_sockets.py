"""Another user of the machine takes over Ray's sockets, reads its logs or its objects: everything is refused,
whatever started the Ray."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attacks import stranger
from fissura.core.errors import ResourceError
from fissura.distributed.environment import check_current_cluster
from fissura.serving.allowed_roots import JOBS
from serve_process import FISSURA, PHOTO, TOKEN, asked, descendants, serving

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(900)]

OWN = """
import sys
from fissura.distributed.environment import prepare_environment
prepare_environment(None)
from fissura.distributed.cluster import connected
with connected(None, cpus=1):
    import numpy as np, ray
    kept = ray.put(np.zeros(2**24, np.uint8))
    print("ready", flush=True)
    sys.stdin.read()
"""
HEAD_OF_A_DRILL = """
import sys
from fissura.distributed.environment import prepare_environment, private_folder
prepare_environment(None)
from fissura.operations.drill.head import Head
with private_folder() as folder:
    head = Head(folder)
    head.start()
    print("ready", head.address, flush=True)
    sys.stdin.read()
    head.kill()
"""
OF_A_TEST = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print("ready", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Rays that ask for no other folder lie in one like /tmp, and not in that of the tests."""
    with tempfile.TemporaryDirectory(prefix="o-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def attacked(folders: list[Path], pids: list[int]) -> tuple[dict[str, int], list[str]]:
    """What a stranger tried, and what was granted to him."""
    done = subprocess.run(
        [sys.executable, stranger.__file__],
        input=json.dumps({"folders": [str(folder) for folder in folders], "pids": pids}),
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found["tried"], found["granted"]


def marked(mark: str) -> dict[int, str]:
    """The processes with this mark in their environment, and their command lines: a `ray start` leaves no
    other trace to what it started."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


@contextmanager
def started(program: str) -> Iterator[dict[int, str]]:
    """The processes of a program that has a Ray."""
    mark = f"FISSURA_ATTACKED={secrets.token_hex(8)}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | dict([mark.split("=")]),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("ready")
            yield marked(mark)
        finally:
            process.communicate("", timeout=120)


def session_of(processes: dict[int, str]) -> Path:
    """The folder of the one session of these processes."""
    words = [word for line in processes.values() for word in line.split()]
    [session] = {
        word.partition("=")[2] for word in words if word.startswith(("--session-dir=", "--session_dir="))
    }
    return Path(session)


def assert_all_refused(processes: dict[int, str], measured: Callable[..., None], what: str) -> None:
    session = session_of(processes)
    tried, granted = attacked([session], list(processes))
    assert tried["socket"] >= 4
    assert tried["file"] >= 20
    assert tried["process"] >= 30
    measured(f"another user, {what}", tried=sum(tried.values()), granted=len(granted))
    assert granted == []
    # anybody may read a command line
    environments = [Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") for pid in processes]
    tokens = {
        value
        for each in environments
        for name, _, value in (one.partition("=") for one in each)
        if name == "RAY_AUTH_TOKEN"
    }
    assert not [line for line in processes.values() if any(token in line for token in tokens)]


def test_the_stranger_gets_into_a_folder_as_ray_makes_it() -> None:
    """So that what he is refused elsewhere is refused by the folder, and not by how he asks."""
    with (
        tempfile.TemporaryDirectory(prefix="open-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        session = Path(folder, "session")
        session.mkdir()
        listener.bind(str(session / "plasma_store"))
        listener.listen()
        (session / "raylet.out").write_text("log")
        for path in (session.parent, session, *session.iterdir()):
            path.chmod(0o777)
        _, granted = attacked([session], [])
    told = {line.partition(" /")[0] for line in granted}
    assert told == {"list", "write into", "connect to", "rename", "read", "write"}


@pytest.mark.parametrize("program", [OWN, HEAD_OF_A_DRILL], ids=["fissura's own", "a drill's head"])
def test_another_user_is_refused_everything(
    program: str, open_folder: Path, measured: Callable[..., None]
) -> None:
    with started(program) as processes:
        assert_all_refused(processes, measured, "a Ray of one's own")
    assert list(open_folder.iterdir()) == [], "nothing is left"


def test_another_user_is_refused_everything_of_a_test_s_cluster(measured: Callable[..., None]) -> None:
    with started(OF_A_TEST) as processes:
        assert_all_refused(processes, measured, "a test's cluster")


def test_another_user_is_refused_everything_of_a_service(
    segmenter_run: Path, open_folder: Path, tmp_path: Path, measured: Callable[..., None]
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="root-", dir="/tmp") as root,
        serving(tmp_path, f"walls={segmenter_run}", "--cpus-per-replica", "1", "--root", root) as running,
    ):
        Path(root).chmod(0o755)
        images = Path(root, "images")
        images.mkdir()
        (images / "wall.jpg").write_bytes(PHOTO)
        asked_for = json.dumps({"images": str(images), "out": str(images.with_name("found"))}).encode()
        reply = asked(running.url, "POST", "/v1/jobs", asked_for, media="application/json")
        assert reply.status == 202
        below = descendants(running.process.pid)
        assert [pid for pid in below if TOKEN.encode() in Path(f"/proc/{pid}/environ").read_bytes()] == []
        assert_all_refused({running.process.pid: ""} | below, measured, "a service")
        tried, granted = attacked([Path(root, JOBS)], [])
        assert (tried["file"] >= 1, granted) == (True, [])
    assert list(open_folder.iterdir()) == [], "nothing is left"


def test_another_user_does_not_say_which_cluster_auto_is(open_folder: Path) -> None:
    """Who writes that file gets the token of whoever believes it."""
    file = open_folder / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("10.0.0.9:6379")
    check_current_cluster()
    os.chown(file, stranger.NOBODY, stranger.NOBODY)
    with pytest.raises(ResourceError, match=f"{file}, .* belongs to another user .* by --address HOST:PORT"):
        check_current_cluster()
    done = subprocess.run(
        [FISSURA, "doctor", "--address", "auto"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert f"error: --address auto: {file}, " in done.stderr
