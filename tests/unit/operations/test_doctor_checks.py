"""What each check makes of good nodes and of bad ones, and what it tells the reader to do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fissura.operations.doctor import cluster_checks as between
from fissura.operations.doctor import machine_checks as machine
from fissura.operations.doctor import software_checks as software
from fissura.operations.doctor.checks import CHECKS, judge
from fissura.operations.doctor.facts import (
    Facts,
    Gpu,
    Gpus,
    ListeningPort,
    NodeFolder,
    Offset,
    RayResources,
    Seen,
    Shared,
    Token,
    Written,
)
from fissura.operations.doctor.findings import Finding

GIB = 2**30
EVERYWHERE = "0.0.0.0"  # noqa: S104  what is looked for
SHM = "/dev/shm"  # noqa: S108
VERSIONS = {"fissura": "0.1.0", "ray": "2.60.0", "torch": "2.15.0", "optuna": "5.0.0", "numpy": "2.4.6"}
RANGES = {"python": ">=3.11,<3.15", "ray": "<2.70,>=2.60", "torch": "<3,>=2.11"}
STORAGE = NodeFolder("storage", "/shared", 900 * GIB, 1000 * GIB, "nfs4", ("rw", "vers=4.1"))
H100 = Gpu("H100", "570.1", 80 * GIB, 0)


def node(name: str, **changes: Any) -> Facts:
    """A node on which nothing is wrong, but for `changes`."""
    good = Facts(
        node=name, python="3.12.3", versions=VERSIONS, code="abc", import_problem="",
        ray=RayResources(8, 1, 20 * GIB),
        folders=(
            NodeFolder("cache", "/home/u/.cache", 100 * GIB, 200 * GIB, "ext4"),
            NodeFolder("Ray's session", "/ray/s", 100 * GIB, 200 * GIB, "ext4"),
            STORAGE,
        ),
        cpus=8, cpu_limit=None, memory=64 * GIB, memory_free=60 * GIB,
        shm=NodeFolder("shared memory", SHM, 32 * GIB, 32 * GIB, "tmpfs"), exposed="",
        files_limit=65536, files_open=200, settings={"OMP_WAIT_POLICY": "PASSIVE"}, shadows=(),
        tools=("ssh", "sshd", "rsync"), clusters=("/ray/s",),
        listeners=(
            ListeningPort("dashboard", "127.0.0.1", 8265, True),
            ListeningPort("head", EVERYWHERE, 6379, True),
            ListeningPort("other", EVERYWHERE, 40001, True),
        ),
        token=Token("token", "/home/u/.ray/auth_token", 0o600, "m1"),
        gpus=Gpus(1, "", (H100,), 1, "12.8", ""),
    )  # fmt: skip
    return replace(good, **changes)


def cluster(*nodes: Facts, **changes: Any) -> Seen:
    """What is seen of two good nodes, or of `nodes`, but for `changes`."""
    found = nodes or (node("a"), node("b"))
    names = [one.node for one in found]
    shared = Shared(
        "/shared", {name: Written(0.002) for name in names}, {name: tuple(names) for name in names},
        {"a file": "refused", "SQLite": "refused"},
    )  # fmt: skip
    seen = Seen(
        nodes=found, ranges=RANGES, shared=shared, address="10.0.0.1:6379",
        offsets={name: Offset(0.0, 0.001) for name in names},
        data={"cfd:/shared/cfd": dict.fromkeys(names, "d1")}, data_problems={"cfd:/shared/cfd": {}},
    )  # fmt: skip
    return replace(seen, **changes)


def bad(**changes: Any) -> Seen:
    """Two nodes, of which the second has `changes`."""
    return cluster(node("a"), node("b", **changes))


def shared(**changes: Any) -> Seen:
    seen = cluster()
    assert seen.shared is not None
    return replace(seen, shared=replace(seen.shared, **changes))


def folders(*, storage: NodeFolder = STORAGE, **changes: Any) -> dict[str, Any]:
    cache = replace(NodeFolder("cache", "/home/u/.cache", 100 * GIB, 200 * GIB, "ext4"), **changes)
    return {"folders": (cache, storage)}


def test_a_good_cluster_is_all_ok_and_every_check_says_so() -> None:
    findings = judge(cluster())
    assert [one.level for one in findings] == ["ok"] * len(CHECKS)
    assert not any(one.nodes or one.remedy for one in findings)


def test_this_machine_alone_is_ok_without_a_ray() -> None:
    alone = node(
        "me", ray=None, listeners=(), clusters=(), token=Token("", "/home/u/.ray/auth_token", None, "")
    )
    findings = judge(cluster(alone, shared=None, offsets={}, data={}, data_problems={}, address=None))
    assert {one.level for one in findings} == {"ok"}


BAD: list[tuple[Callable[[Seen], list[Finding]], Seen, str, str, str]] = [
    (
        software.nodes,
        cluster(silent={"c": "nothing in 60 s"}),
        "error",
        "nothing in 60 s",
        "Ray session's logs",
    ),
    (software.versions, bad(python="3.12.4"), "error", "python 3.12.", "install the same"),
    (software.versions, bad(versions={**VERSIONS, "numpy": "2.1.0"}), "error", "numpy 2.", "constraints.txt"),
    (software.versions, bad(code="def"), "error", "the source of fissura", "install the same"),
    (
        software.versions,
        cluster(node("a", versions={**VERSIONS, "torch": "2.9.0"})),
        "error",
        "torch 2.9.0 is outside of <3,>=2.11",
        "pip install -c platform/constraints.txt",
    ),
    (
        software.versions,
        bad(import_problem="ModuleNotFoundError: No module named 'fissura'", code=""),
        "error",
        "cannot be imported",
        "install fissura there",
    ),
    (
        software.versions,
        bad(versions={name: one for name, one in VERSIONS.items() if name != "optuna"}),
        "error",
        "optuna is not installed",
        "install fissura there",
    ),
    (
        software.standard_platform,
        bad(shadows=("/w/platform.py",)),
        "error",
        "/w/platform.py hides",
        "rename it",
    ),
    (
        software.ray_address,
        cluster(address=None, address_problem="RAY_ADDRESS=h:1 is set, and nobody answers there"),
        "error",
        "nobody answers",
        "unset RAY_ADDRESS",
    ),
    (
        software.ray_address,
        replace(bad(clusters=("/ray/s", "/ray/t")), address="auto"),
        "warning",
        "2 Rays",
        "--address HOST:PORT",
    ),
    (between.tokens, bad(token=Token("token", "/t", 0o644, "m1")), "error", "mode 0644", "chmod 600 /t"),
    (
        between.tokens,
        bad(token=Token("token", "/t", 0o600, "m2")),
        "error",
        "another token than on a",
        "copy one token",
    ),
    (
        between.tokens,
        bad(token=Token("token", "/t", None, "")),
        "error",
        "there is no token at /t",
        "copy the cluster's token",
    ),
    (
        between.tokens,
        bad(token=Token("disabled", "/t", 0o600, "m1")),
        "error",
        "disabled on b",
        "set it alike",
    ),
    (
        between.tokens,
        cluster(node("a", token=Token("", "/t", None, ""))),
        "warning",
        "asks nobody for a token",
        "ray get-auth-token --generate",
    ),
    (
        between.ports,
        bad(listeners=(ListeningPort("dashboard", EVERYWHERE, 8265, False),)),
        "error",
        "ShadowRay",
        "--dashboard-host=127.0.0.1",
    ),
    (
        between.ports,
        bad(listeners=(ListeningPort("dashboard", "::", 8265, True),)),
        "warning",
        "listen on :::8265",
        "through ssh",
    ),
    (
        between.ports,
        bad(listeners=(ListeningPort("head", "10.0.0.2", 6379, False),)),
        "warning",
        "6379 are open to the network",
        "RAY_AUTH_MODE=token",
    ),
    (
        between.ports,
        bad(listeners=(ListeningPort("serve", EVERYWHERE, 8000, True),)),
        "warning",
        "0.0.0.0:8000",
        "TLS",
    ),
    (
        machine.sockets,
        bad(exposed="/ray/s/sockets"),
        "warning",
        "/ray/s/sockets can be written by every user",
        "start Ray with --temp-dir",
    ),
    (
        between.storage,
        shared(written={"a": Written(0.002), "b": Written(problem="No space left on device")}),
        "error",
        "No space left",
        "make room",
    ),
    (
        between.storage,
        shared(saw={"a": ("a",), "b": ("b",)}),
        "error",
        "is not what other nodes have",
        "mount the same file system",
    ),
    (
        between.storage,
        shared(written={"a": Written(0.002), "b": Written(0.4)}),
        "warning",
        "takes 400 ms",
        "faster disk",
    ),
    (
        between.storage,
        shared(locks={"a file": "granted", "SQLite": "refused"}),
        "error",
        "the lock of a file at once",
        "NFS 4.1",
    ),
    (
        between.storage,
        shared(locks={"a file": "refused", "SQLite": "granted"}),
        "error",
        "the lock of SQLite at once",
        "NFS 4.1",
    ),
    (
        between.storage,
        shared(locks={"a file": "refused", "SQLite": "disk I/O error"}),
        "error",
        "SQLite cannot be locked (disk I/O error)",
        "a file system with locks",
    ),
    (
        between.storage,
        bad(**folders(storage=replace(STORAGE, options=("rw", "nolock")))),
        "warning",
        "NFS mounted with nolock",
        "nfsvers=4.1",
    ),
    (
        between.clocks,
        cluster(offsets={"a": Offset(0, 0.01), "b": Offset(7.5, 0.01)}),
        "warning",
        "7.5 s apart",
        "chrony",
    ),
    (
        between.data,
        cluster(data={"x:/x": {"a": "d1", "b": "d2"}}),
        "error",
        "other files than elsewhere",
        "copy it anew",
    ),
    (
        between.data,
        cluster(data_problems={"x:/x": {"b": "/x: does not exist"}}),
        "error",
        "/x: does not exist",
        "every node sees it",
    ),
    (
        machine.disk,
        bad(**folders(free=3 * GIB)),
        "warning",
        "cache /home/u/.cache: 3.0 GiB free of 200.0 GiB",
        "free some",
    ),
    (machine.disk, bad(**folders(free=2**20)), "error", "1 MiB free", "name another folder"),
    (machine.disk, bad(**folders(problem="/home/u is read-only")), "error", "read-only", "permissions"),
    (
        machine.disk,
        bad(folders=(NodeFolder("Ray's session", "/ray/s", 40 * GIB, 1000 * GIB, "ext4"),)),
        "warning",
        "more than 95% of the disk",
        "--temp-dir",
    ),
    (
        machine.memory,
        bad(memory_free=GIB),
        "warning",
        "1.0 GiB of memory free of 64.0 GiB",
        "lower --concurrency",
    ),
    (
        machine.shared_memory,
        bad(shm=NodeFolder("shared memory", SHM, 0, 64 * 2**20, "tmpfs")),
        "warning",
        "64 MiB, a container's default",
        "--shm-size=20g",
    ),
    (
        machine.shared_memory,
        bad(shm=NodeFolder("shared memory", SHM, 0, 8 * GIB, "tmpfs")),
        "warning",
        "wants 20.0 GiB",
        "--object-store-memory",
    ),
    (
        machine.cpus,
        bad(cpu_limit=2.0),
        "warning",
        "Ray counts 8 CPUs, its control group allows 2",
        "--num-cpus=2",
    ),
    (machine.cpus, bad(cpus=4), "warning", "the machine has 4", "--num-cpus=4"),
    (
        machine.threads,
        bad(settings={"OMP_NUM_THREADS": "64"}),
        "warning",
        "OMP_NUM_THREADS=64 on 8 CPUs",
        "unset OMP_NUM_THREADS",
    ),
    (
        machine.threads,
        cluster(node("a", ray=None, settings={"OMP_NUM_THREADS": "64"})),
        "warning",
        "OMP_NUM_THREADS=64 on 8 CPUs",
        "unset",
    ),
    (
        machine.threads,
        bad(settings={"OMP_WAIT_POLICY": "active"}),
        "warning",
        "OMP_WAIT_POLICY=ACTIVE",
        "PASSIVE",
    ),
    (machine.open_files, bad(files_limit=1024), "warning", "ulimit -n is 1024", "ulimit -n 65536"),
    (
        machine.open_files,
        bad(files_open=60000),
        "warning",
        "60000 of 65536 files are open",
        "ulimit -n 65536",
    ),
    (machine.gpus, bad(gpus=Gpus()), "error", "Ray counts 1 GPU, the machine shows none", "--gpus all"),
    (
        machine.gpus,
        bad(gpus=Gpus(1, "Driver/library version mismatch", (), 1, "12.8")),
        "error",
        "version mismatch",
        "reboot",
    ),
    (
        machine.gpus,
        bad(gpus=Gpus(1, "", (H100,), 0, "13.0", "driver is too old")),
        "error",
        "built for CUDA 13.0) cannot use the GPUs, driver 570.1: driver is too old",
        "update the driver",
    ),
    (
        machine.gpus,
        bad(gpus=Gpus(1, "", (H100,), 0, "", "Torch not compiled with CUDA enabled")),
        "error",
        "built without CUDA",
        "install a PyTorch",
    ),
    (
        machine.gpus,
        bad(gpus=Gpus(1, "", (H100,), 1, "12.8", "no kernel image")),
        "error",
        "fails on them: no kernel image",
        "built for these GPUs",
    ),
    (
        machine.gpus,
        bad(gpus=Gpus(2, "", (H100, H100), 2, "12.8")),
        "warning",
        "Ray counts 1 GPU, PyTorch sees 2",
        "--num-gpus=2",
    ),
    (
        machine.gpus,
        bad(gpus=Gpus(1, "", (replace(H100, others=30 * GIB),), 1, "12.8")),
        "warning",
        "others hold 30.0 GiB of 80.0 GiB",
        "CUDA_VISIBLE_DEVICES",
    ),
]


@pytest.mark.parametrize(
    ("check", "seen", "level", "text", "remedy"), BAD, ids=[f"{one[0].__name__}: {one[3]}" for one in BAD]
)
def test_what_is_wrong_is_said_with_its_remedy(
    check: Callable[[Seen], list[Finding]], seen: Seen, level: str, text: str, remedy: str
) -> None:
    assert any(one.level == level and text in one.text and remedy in one.remedy for one in check(seen)), (
        check(seen)
    )
    assert not any(one.level == "ok" for one in check(seen))


def test_every_check_has_a_bad_case_here() -> None:
    assert {one[0] for one in BAD} | {software.tools} == set(CHECKS)


def test_tools_for_ray_up_are_a_note_and_no_fault() -> None:
    (found,) = software.tools(bad(tools=("ssh",)))
    assert found.level == "ok"
    assert "rsync and sshd" in found.text or "sshd and rsync" in found.text


def test_a_fault_names_the_nodes_that_have_it_unless_all_do() -> None:
    limits = machine.open_files(bad(files_limit=1024))
    assert [one.nodes for one in limits] == [("b",)]
    everywhere = cluster(*(node(name, files_limit=1024) for name in "abc"))
    assert [one.nodes for one in machine.open_files(everywhere)] == [()]
    others = cluster(node("a"), node("b", python="3.12.4"), node("c"))
    (differing,) = software.versions(others)
    assert (differing.nodes, differing.text) == (("b",), "python 3.12.4, elsewhere 3.12.3")


def test_clocks_within_a_slow_round_trip_are_not_called_wrong() -> None:
    (found,) = between.clocks(cluster(offsets={"a": Offset(0, 0.01), "b": Offset(7.5, 8.0)}))
    assert found.level == "ok"
