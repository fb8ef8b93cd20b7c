"""What a Ray of one's own needs of this machine, looked at before anything is written."""

import os
import sys
from pathlib import Path

import pytest

import fissura
from fissura.core.errors import DataError, ResourceError
from fissura.distributed.environment import (
    SOCKET_BYTES,
    check_temporary_folder,
    private_folder,
    temporary_folder,
)

LONG = "/" + "x" * 60


@pytest.fixture(autouse=True)
def own_variables(monkeypatch):
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "ray", raising=False)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_whose_sockets_have_too_long_a_path_is_named(variable, monkeypatch):
    monkeypatch.setenv(variable, LONG)
    with pytest.raises(
        ResourceError, match=f"{variable}={LONG}: .* at most 107 bytes: .* such as /tmp"
    ) as error:
        check_temporary_folder(None)
    assert len(error.value.problems) == 1


def test_the_longest_folder_that_is_told_of_is_taken(monkeypatch):
    monkeypatch.setenv("TMPDIR", LONG)
    with pytest.raises(ResourceError) as error:
        check_temporary_folder(None)
    room = int(str(error.value).split("a folder of at most ")[1].split()[0])
    fits = "/" + "é" * ((room - 1) // 2) + "x" * ((room - 1) % 2)
    for folder, problem in ((fits, "no folder that can be written"), ("/" + "x" * room, "has at most")):
        monkeypatch.setenv("TMPDIR", folder)
        with pytest.raises(ResourceError, match=problem):
            check_temporary_folder(None)


def test_the_longest_path_of_a_socket_is_that_of_a_real_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    session = "session_2000-01-01_00-00-00_000000_" + str(os.getpid())
    with private_folder() as folder:
        longest = len(os.fsencode(folder / session / "sockets" / "plasma_store"))
    room = SOCKET_BYTES - longest + len(os.fsencode(tmp_path))
    monkeypatch.setenv("TMPDIR", LONG)
    with pytest.raises(ResourceError, match=f"a folder of at most {room} bytes"):
        check_temporary_folder(None)


def test_a_ray_s_folder_is_its_user_s_alone_whatever_ray_makes_of_it_and_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = os.umask(0)
    try:
        with private_folder() as folder:
            folder.chmod(0o777)
            assert folder.parent.parent == tmp_path
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            (folder / "log").touch()
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(DataError), private_folder():
            raise DataError("a mistake")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ZeroDivisionError), private_folder() as folder:
            raise ZeroDivisionError
        assert folder.is_dir(), "Ray's logs tell of what nobody foresaw"
    finally:
        os.umask(before)


def test_only_private_folders_hold_a_ray_of_one_s_own():
    platform = Path(fissura.__file__).parent
    starts = ('address="local"', "address='local'", '"start", "--head"', "cluster_utils")
    sources = {path: path.read_text("utf-8") for path in platform.rglob("*.py")}
    starting = {path for path, text in sources.items() if any(start in text for start in starts)}
    assert {path.relative_to(platform).as_posix() for path in starting} == {
        "distributed/cluster.py",
        "operations/drill/head.py",
    }
    assert all("private_folder()" in sources[path] for path in starting)


def test_a_folder_whose_names_others_may_change_holds_no_ray(tmp_path, monkeypatch):
    open_to_all = tmp_path / "o"
    (open_to_all / "own").mkdir(parents=True)
    open_to_all.chmod(0o777)
    monkeypatch.setattr("fissura.distributed.environment.SOCKET_BYTES", 1000)
    for folder in (open_to_all, open_to_all / "own"):
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        with pytest.raises(
            ResourceError, match=f"since {open_to_all} has mode 0777; `chmod \\+t {open_to_all}`"
        ):
            check_temporary_folder(None)
    open_to_all.chmod(0o1777)
    check_temporary_folder(None)


def test_the_path_is_the_one_that_ray_makes(monkeypatch):
    from ray._common.utils import get_default_ray_temp_dir
    from ray._private.utils import validate_socket_filepath

    for name in (None, "TMPDIR", "RAY_TMPDIR"):
        if name is not None:
            monkeypatch.setenv(name, f"/{name}")
        assert get_default_ray_temp_dir() == str(temporary_folder()[1] / "ray")
    validate_socket_filepath("x" * SOCKET_BYTES)
    with pytest.raises(OSError, match="cannot exceed"):
        validate_socket_filepath("x" * (SOCKET_BYTES + 1))


def test_another_clusters_folder_is_none_of_ours(monkeypatch):
    monkeypatch.setenv("TMPDIR", LONG)
    check_temporary_folder("auto")


def test_what_starts_a_ray_is_refused_before_anything_is_written(tmp_path, tmp_path_factory, monkeypatch):
    image = tmp_path_factory.mktemp("images") / "wall.png"
    image.write_bytes(b"looked at later")
    monkeypatch.setenv("TMPDIR", LONG)
    for task in (
        lambda: fissura.search("small_unet", data=["synthetic:drawn"], storage=tmp_path / "studies"),
        lambda: fissura.train(
            "small_unet",
            data=["synthetic:drawn"],
            storage=tmp_path / "studies",
            workers=2,
            cache=tmp_path / "c",
        ),
        lambda: fissura.train("cnn_svm", data=["class_folder:x"], storage=tmp_path / "studies"),
        lambda: fissura.serve([str(tmp_path)]),
        lambda: fissura.batch(image, run=tmp_path, out=tmp_path / "found"),
    ):
        with pytest.raises(ResourceError, match="TMPDIR"):
            task()
    assert not list(tmp_path.iterdir())
