"""What a Ray of one's own needs of this machine, looked at before anything is written."""

import sys

import pytest

import fissura
from fissura.core.errors import ResourceError
from fissura.jobs.environment import SOCKET_BYTES, check_temporary_folder, temporary_folder

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
    monkeypatch.setenv("TMPDIR", "/" + "é" * ((room - 1) // 2) + "x" * ((room - 1) % 2))
    check_temporary_folder(None)
    monkeypatch.setenv("TMPDIR", "/" + "x" * room)
    with pytest.raises(ResourceError):
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
