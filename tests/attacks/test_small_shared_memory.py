"""A container's /dev/shm of 64 MB, in which no object store fits: Ray's lies on the disk, and is private."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(900)]

# in a mount namespace of its own
WORK = """
import subprocess, sys
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "own", "/dev/shm"], check=True)
from fissura.distributed.environment import prepare_environment
prepare_environment(None)
from fissura.distributed.cluster import connected
with connected(None, cpus=1):
    import numpy as np, ray
    # more than /dev/shm holds, as a trial's result or a batch of images may be
    sent = [ray.put(np.full(2**26, number, np.uint8)) for number in range(4)]
    doubled = ray.remote(num_cpus=1)(lambda array: array * 2)
    print([int(ray.get(doubled.remote(each)).sum()) // 2**26 for each in sent])
    place = ray._private.worker._global_node.get_temp_dir_path()
    [raylet] = [
        path.parent
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if (said := path.read_bytes()).split(bytes(1))[0].endswith(b"raylet") and place.encode() in said
    ]
    files = [str(link.readlink()) for link in (raylet / "fd").iterdir()]
    # mapped, and removed from its folder at once
    print([file.startswith(place) for file in files if "/plasma" in file and "deleted" in file])
"""


def test_a_ray_of_one_s_own_works_on_the_disk_in_its_private_folder() -> None:
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", WORK], capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["[0, 2, 4, 6]", "[True]"]), done.stderr


def test_doctor_warns_of_it_with_the_remedy() -> None:
    mounts = 'mount -t tmpfs -o size=64m own /dev/shm && exec "$0" -c "$1" doctor'
    main = "from fissura.cli import main; main()"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounts, sys.executable, main],
        capture_output=True,
        text=True,
        timeout=600,
    )
    [line] = [line for line in done.stdout.splitlines() if "shared memory" in line]
    assert "has 64 MiB, a container's default; Ray keeps its objects on the disk then, much slower" in line
    assert "--shm-size=" in done.stdout
