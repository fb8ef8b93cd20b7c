"""What a node says of itself: real files, processes, sockets and locks of this machine."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from fissura.distributed.processes import Process, is_loopback, listeners, ray_processes
from fissura.distributed.reach import unreachable
from fissura.operations.doctor.crew import ThisMachine
from fissura.operations.doctor.diagnose import version_ranges
from fissura.operations.doctor.facts import Facts, ListeningPort, NodeQuery
from fissura.operations.doctor.gpus import look_at_gpus
from fissura.operations.doctor.probe import exposed, look_at_folder, take
from fissura.operations.doctor.shared_storage import (
    hold_locks,
    read_data,
    read_tokens,
    try_locks,
    write_token,
)

TOKEN = "0123456789abcdef" * 4


def facts(folder: Path, **changes: Any) -> Facts:
    asked = {"node": "me", "nonce": "n", "ray": None, "session": "", "folders": {}, "started_in": str(folder)}
    return TypeAdapter(Facts).validate_python(take(NodeQuery(**asked | changes)))


def test_facts_cross_a_process_as_plain_values_and_come_back(tmp_path: Path) -> None:
    found = facts(tmp_path, folders={"storage": str(tmp_path / "not" / "yet")})
    assert TypeAdapter(Facts).validate_python(asdict(found)) == found
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.versions.keys() >= {"ray", "torch", "numpy", "optuna"}
    assert (found.import_problem, len(found.code)) == ("", 12)
    assert found.cpus >= 1
    assert found.files_limit > found.files_open > 0
    assert 0 < found.memory_free <= found.memory
    (storage,) = found.folders
    assert storage.free > 0
    assert not storage.problem


def test_a_shared_memory_that_is_small_is_seen_as_it_is(tmp_path: Path) -> None:
    found = facts(tmp_path, shm=str(tmp_path))
    assert found.shm.total == look_at_folder("", str(tmp_path)).total


@pytest.mark.parametrize("name", ["platform.py", "platform/__init__.py"])
def test_a_module_in_the_place_of_the_standard_library_s_platform_is_named(tmp_path: Path, name: str) -> None:
    assert facts(tmp_path).shadows == ()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert facts(tmp_path).shadows == (str(tmp_path / name),)


def test_what_a_control_group_allows_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fissura.operations.doctor.probe._group_files", lambda name: [tmp_path / name])
    assert facts(tmp_path).cpu_limit is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert facts(tmp_path).cpu_limit is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**27}\n")
    found = facts(tmp_path)
    assert (found.cpu_limit, found.memory, found.memory_free) == (1.5, 2**28, 2**27)
    for name in ("cpu.max", "memory.max", "memory.current"):
        (tmp_path / name).unlink()
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert facts(tmp_path).cpu_limit is None
    (tmp_path / "cpu.cfs_quota_us").write_text("400000\n")
    assert facts(tmp_path).cpu_limit == 4


def test_a_token_is_compared_without_being_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth_token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o644)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    found = facts(tmp_path)
    assert (found.token.mode, found.token.permissions) == ("token", 0o644)
    assert TOKEN not in repr(found)
    assert facts(tmp_path, nonce="other").token.mark != found.token.mark
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert facts(tmp_path).token.mark == found.token.mark
    assert facts(tmp_path).token.permissions is None, "the file is not what is used"


def test_a_folder_that_cannot_be_written_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # a read-only folder stops nobody who is root
    assert "read-only" in look_at_folder("storage", str(tmp_path)).problem


def test_a_folder_of_sockets_that_any_user_may_write_is_seen_and_one_that_none_gets_into_is_not() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        sockets = Path(folder, "ray", "session", "sockets")
        sockets.mkdir(parents=True)
        for path in (sockets, sockets.parent, sockets.parent.parent):
            path.chmod(0o777)
        assert exposed(sockets) == ""
        Path(folder).chmod(0o755)
        assert exposed(sockets) == str(sockets)
        assert facts(Path(folder), session=str(sockets.parent)).exposed == str(sockets)
        sockets.chmod(0o755)
        assert exposed(sockets) == ""
    assert exposed(sockets) == ""


def test_a_port_is_known_by_the_process_that_listens_on_it() -> None:
    with socket.socket() as here, socket.socket() as everywhere:
        here.bind(("127.0.0.1", 0))
        everywhere.bind(("", 0))
        here.listen()
        everywhere.listen()
        ours = Process(os.getpid(), "python ray/dashboard/dashboard.py --session-dir=/s", "/s")
        found = {one.port: one for one in listeners([ours])}
        one, two = (found[each.getsockname()[1]] for each in (here, everywhere))
    assert isinstance(one, ListeningPort)
    assert (one.role, one.address, is_loopback(one.address)) == ("dashboard", "127.0.0.1", True)
    assert not is_loopback(two.address)


def test_a_process_of_ray_is_known_by_its_own_words_or_by_who_started_it() -> None:
    wait = "import sys; print(flush=True); sys.stdin.read()"
    start = (
        f"import subprocess, sys; subprocess.run(['ray::Actor', '-c', {wait!r}], executable=sys.executable)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, "--session-dir=/ray/mine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as raylet:
        assert raylet.stdout is not None
        raylet.stdout.readline()
        ours = [one for one in ray_processes() if one.session == "/ray/mine"]
        raylet.communicate()
    assert len(ours) == 2
    assert [one.pid for one in ours if one.command.startswith("ray::Actor")] != [raylet.pid]


class TestSharedFiles:
    def test_written_by_one_are_seen_by_another(self, tmp_path: Path) -> None:
        scratch = str(tmp_path / "scratch")
        seconds, problem = write_token(scratch, "a", "t")
        assert problem == ""
        assert seconds > 0
        assert read_tokens(scratch, ["a"], "t") == ["a"]

    def test_that_another_wrote_elsewhere_are_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fissura.operations.doctor.shared_storage.VISIBLE_SECONDS", 0.1)
        write_token(str(tmp_path / "mine"), "a", "t")
        write_token(str(tmp_path / "theirs"), "b", "t")
        assert read_tokens(str(tmp_path / "mine"), ["a", "b"], "t") == ["a"]

    def test_of_a_folder_that_is_not_there_are_a_problem(self, tmp_path: Path) -> None:
        assert write_token(str(tmp_path / "no" / "scratch"), "a", "t") == (0.0, "No such file or directory")

    def test_are_locked_against_another_process(self, tmp_path: Path) -> None:
        kept, tried = ThisMachine().at_once(hold_locks, try_locks, str(tmp_path))
        assert kept == {}
        assert tried == {"a file": "refused", "SQLite": "refused"}

    def test_that_nobody_holds_are_told_apart_from_locked_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fissura.operations.doctor.shared_storage.VISIBLE_SECONDS", 0.1)
        assert try_locks(str(tmp_path)) == {"SQLite": "the process that was to hold the lock did not come"}
        (tmp_path / "held").touch()
        assert try_locks(str(tmp_path)) == {"a file": "granted", "SQLite": "granted"}


class TestData:
    def test_is_named_by_its_bytes(self, tmp_path: Path) -> None:
        from fissura.data.synthetic import SyntheticSpec, write

        write(
            SyntheticSpec(train=2, val=1, test=1, height=32, width=32, crack_width=(1.5, 4.0)), tmp_path / "x"
        )
        plain = {"kind": "synthetic", "root": str(tmp_path / "x")}
        digest, problem = read_data(plain, str(tmp_path / "cache"))
        assert (len(digest), problem) == (16, "")

    def test_that_is_not_there_is_a_problem(self, tmp_path: Path) -> None:
        digest, problem = read_data({"kind": "synthetic", "root": str(tmp_path / "x")}, str(tmp_path))
        assert digest == ""
        assert str(tmp_path / "x") in problem


def test_a_gpu_that_nvidia_smi_shows_and_pytorch_cannot_use_has_a_reason(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase $1 in *compute-apps*) echo 'GPU-1, 999999999, 4000';;"
        " *) echo 'GPU-1, H100, 570.1, 81559, 4500';; esac\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    settings = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    found = look_at_gpus(settings)
    assert [(one.name, one.driver, one.others // 2**20) for one in found.seen] == [("H100", "570.1", 4500)]
    assert found.torch_count == 0
    assert found.torch_problem


def test_an_address_at_which_nobody_answers_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert "refused" in unreachable(f"127.0.0.1:{port}")
        closed.listen()
        assert unreachable(f"127.0.0.1:{port}") == ""
        assert unreachable(f"ray://127.0.0.1:{port}") == ""
    assert unreachable("auto") == ""
    assert unreachable("nowhere.invalid:1")
    assert unreachable("127.0.0.1:99999999")


def test_the_ranges_are_those_of_the_installed_package() -> None:
    ranges = version_ranges()
    assert ranges.keys() == {"python", "ray", "torch", "optuna", "numpy"}
    assert all(ranges.values())


class TestTheCommand:
    def test_says_a_line_a_check_and_counts_them(
        self, fissura: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        code, out, said = fissura("doctor", "--storage", tmp_path)
        *lines, summary = out.splitlines()
        assert {line.split()[0] for line in lines} <= {"ok", "warning", "error"}
        errors = sum(line.startswith("error") for line in lines)
        assert code == (1 if errors else 0)
        assert f"{errors} error" in summary
        assert said == ["asking 1 node"]
        assert any("locks hold" in line for line in lines)
        assert list(tmp_path.iterdir()) == [], "nothing of the trial files is left"

    def test_calls_a_folder_that_is_not_there_a_mistake(
        self, fissura: Callable[..., Any], tmp_path: Path
    ) -> None:
        code, _, said = fissura("doctor", "--storage", tmp_path / "none")
        assert code == 2
        assert "no folder lies there; make it" in said[0]

    def test_calls_an_address_at_which_nobody_answers_a_mistake(self, fissura: Callable[..., Any]) -> None:
        code, _, said = fissura("doctor", "--address", "127.0.0.1:1")
        assert code == 2
        assert said[-1].startswith("error: --address 127.0.0.1:1: no Ray cluster answers there")

    def test_looks_at_this_machine_where_ray_address_leads_nowhere(
        self, fissura: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        code, out, _ = fissura("doctor")
        assert code == 1
        assert "RAY_ADDRESS=127.0.0.1:1 is set, and nobody answers there" in out
