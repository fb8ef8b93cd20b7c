"""`fissura doctor` on a cluster of two nodes that has, for real, what it warns of."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fissura.data.synthetic import SyntheticSpec, write

# nodes take seconds to start, and minutes on a busy machine
PATIENCE_SECONDS = 1200
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE_SECONDS)]

BIN = Path(sys.executable).parent
HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
# the second node has file systems of its own where the first has folders: mounts that nobody else sees
OWN_MOUNTS = """
mount -t tmpfs -o size=64m own /dev/shm
mount -t tmpfs -o size=256k own "$1"
mount -t tmpfs -o size=64k own "$2"
dd if=/dev/zero of="$2/filled" bs=4k 2>/dev/null || true
exec "$3" start --address "$4" --num-cpus 1 --block
"""


@contextmanager
def two_nodes(folder: Path, settings: dict[str, str]) -> Iterator[str]:
    """A cluster whose second node has its own `folder/own` and a full `folder/full`; gives its address."""
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    with subprocess.Popen(
        [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=settings
    ) as head:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        words = [str(folder / "own"), str(folder / "full"), str(BIN / "ray"), address]
        with subprocess.Popen(
            [*alone, "sh", "-ec", OWN_MOUNTS, "sh", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings, start_new_session=True,
        ) as second:  # fmt: skip
            try:
                assert second.stdout is not None
                assert any("--block" in line for line in second.stdout), "the second node starts"
                yield address
            finally:
                os.killpg(second.pid, signal.SIGTERM)
                second.communicate(timeout=120)
                head.communicate("", timeout=120)


@pytest.fixture
def open_folder() -> Iterator[str]:
    """Where Ray's own folders are open to all users, as they are in /tmp."""
    with tempfile.TemporaryDirectory(prefix="o-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o1777)
        yield folder


def test_what_is_wrong_with_a_node_is_found_on_that_node(tmp_path: Path, open_folder: str) -> None:
    spec = SyntheticSpec(train=2, val=1, test=1, height=32, width=32, crack_width=(1.5, 4.0))
    write(spec, tmp_path / "own" / "images")
    (tmp_path / "full").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "platform.py").touch()
    token = tmp_path / "auth_token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o644)
    settings = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "64",
        "RAY_TMPDIR": open_folder,
    }

    def doctor(address: str, *words: str) -> tuple[list[dict[str, Any]], list[str]]:
        done = subprocess.run(
            [BIN / "fissura", "doctor", "--address", address, "--json", *words],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, env=settings,
            cwd=tmp_path / "here",
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        findings = json.loads(done.stdout)["findings"]
        return findings, [
            f"{one['level']} {len(one['nodes'])} {one['check']}: {one['text']}" for one in findings
        ]

    with two_nodes(tmp_path, settings) as address:
        data = f"synthetic:{tmp_path / 'own' / 'images'}"
        findings, said = doctor(address, "--storage", str(tmp_path / "own"), "--data", data)
        _, full = doctor(address, "--storage", str(tmp_path / "full"))

    def some(lines: list[str], *parts: str) -> bool:
        return any(all(part in line for part in parts) for line in lines)

    assert some(said, "ok 0 nodes: 2 answered")
    assert some(said, "ok 0 versions: Python")
    assert some(said, "error 0 tokens:", f"{token} can be read by others (mode 0644)")
    assert some(said, "error 0 platform:", f"{tmp_path / 'here' / 'platform.py'} hides")
    assert some(said, "warning 0 threads: OMP_NUM_THREADS=64 on")
    assert some(said, "warning 1 shared memory:", "64 MiB, a container's default")
    assert some(said, "error 1 storage:", "is not what other nodes have there")
    assert some(said, "error 1 data:", f"{tmp_path / 'own' / 'images'}")
    assert some(said, "warning 0 sockets:", "can be written by every user of the machine")
    assert some(said, "ok 0 clocks: at most")
    assert some(full, "error 1 storage:", "cannot be written (No space left on device)")
    assert some(full, "error 1 disk: storage", "0 MiB free")
    second = {tuple(one["nodes"]) for one in findings if one["check"] in ("shared memory", "data")}
    assert len(second) == 1, "both are of the second node"
    assert not list(tmp_path.glob("*/.fissura-doctor-*")), "nothing of the trial files is left"
