"""`fissura dashboard` refuses what cannot be shown, before it starts anything."""

import socket
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest

from fissura.studies.study import Plan, Study

SPACE = """
recipe: small_unet
objective: {metric: val/f1, mode: max}
space:
  model.depth: {int: [2, 4]}
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study whose search has begun no trial yet."""
    study = Study(tmp_path / "bridge")
    study.path.mkdir()
    study.write(
        Plan(
            name="bridge", space=SPACE, profile=None, fixed={}, datasets=(), content="0" * 16, trials=1,
            seed=0,
        )
    )  # fmt: skip
    return study


@pytest.fixture
def begun(study: Study) -> Study:
    """The study with its database."""
    optuna.create_study(study_name="bridge", storage=study.storage())
    return study


def test_a_folder_that_is_no_study_is_named(fissura, tmp_path: Path) -> None:
    for place, why in ((tmp_path, "no study lies there"), (tmp_path / "nowhere", "there is no such folder")):
        code, out, said = fissura("dashboard", place)
        assert (code, out) == (2, "")
        assert said == [f"error: {place}: name a study's folder (one with a study.json); {why}"]


def test_a_study_without_a_database_is_told_how_to_get_one(fissura, study: Study) -> None:
    code, _, said = fissura("dashboard", study.path)
    assert code == 2
    assert said == [f"error: {study.path}: the search has not begun its first trial; run it with --resume"]


def test_every_busy_port_is_named(fissura, begun: Study) -> None:
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        one, two = (probe.getsockname()[1] for probe in probes)
        code, out, said = fissura("dashboard", begun.path, "--tensorboard-port", one, "--optuna-port", two)
    reason = "cannot be listened on (Address already in use); name another, or none"
    assert (code, out) == (2, "")
    assert said == [
        f"error: --tensorboard-port {one}: {reason}",
        f"error: --optuna-port {two}: {reason}",
        "2 errors; nothing was started.",
    ]


def test_one_port_for_both_is_busy_for_the_second(fissura, begun: Study) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code, _, said = fissura("dashboard", begun.path, "--tensorboard-port", port, "--optuna-port", port)
    assert code == 2
    assert said[0].startswith(f"error: --optuna-port {port}: cannot be listened on")
