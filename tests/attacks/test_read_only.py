"""Storage that is mounted read-only: each command that writes says so in one line and ends with 2, before it
works; each that reads goes on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fissura.data.synthetic import SyntheticSpec, write
from fissura.studies.study import Plan, Study

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(900)]

# in a mount namespace of its own: the folder is read-only, for root too
COMMANDS = """
import contextlib, io, json, subprocess, sys
from fissura.cli.app import run
folder, before, commands = json.load(sys.stdin)
def outcome(words):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = run(words)
    return code, said.getvalue().splitlines()
outcomes = [outcome(words) for words in before]
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
print(json.dumps(outcomes + [outcome(words) for words in commands]))
"""


@pytest.fixture
def studies(tmp_path: Path, write_segmenter: Callable[..., Path]) -> Path:
    """A storage with one study of one run, and its images beside it."""
    write(
        SyntheticSpec(train=2, val=1, test=1, height=32, width=32, crack_width=(1.5, 4.0)),
        tmp_path / "cracks",
    )
    storage = tmp_path / "studies"
    plan = {
        "name": "mine", "space": "recipe: small_unet", "profile": None, "fixed": {}, "content": "c" * 16,
        "datasets": [{"kind": "synthetic", "root": str(tmp_path / "cracks")}], "trials": 5, "seed": 3,
    }  # fmt: skip
    Study(storage / "mine").write(Plan.load(plan, source="test"))
    write_segmenter(storage / "mine" / "runs" / "0123456789abcdef")
    return storage


def test_a_read_only_folder_is_one_line_for_every_command_that_writes(studies: Path) -> None:
    data, cache = f"synthetic:{studies.parent / 'cracks'}", str(studies.parent / "cache")
    run, study, space = str(studies / "mine/runs/0123456789abcdef"), str(studies / "mine"), "small_unet"
    here, elsewhere = str(studies), str(studies.parent / "elsewhere")
    writing = {
        "search": ["search", space, "--data", data, "--storage", here, "--cache", cache],
        "search, resumed": ["search", "--resume", "--storage", here, "--cache", cache],
        "search, extended": ["search", "--extend", "2", "--storage", here, "--cache", cache],
        "search, images": [
            "search",
            space,
            "--data",
            data,
            "--storage",
            elsewhere,
            "--cache",
            f"{here}/cache",
        ],
        "train": ["train", space, "--data", data, "--storage", here, "--cache", cache],
        "train, workers": [
            "train",
            space,
            "--data",
            data,
            "--storage",
            here,
            "--cache",
            cache,
            "--workers",
            "2",
        ],
        "train, images": ["train", space, "--data", data, "--storage", elsewhere, "--cache", f"{here}/cache"],
        "data prepare": ["data", "prepare", data, "--cache", f"{here}/cache"],
        "evaluate": ["evaluate", run, "--data", data],
        "report": ["report", study],
        "leaderboard export": ["leaderboard", "export", here, "--format", "csv", "--out", here],
        "export": ["export", run, "--out", f"{here}/bundle"],
        "batch": [
            "batch",
            str(studies.parent / "cracks/images/test"),
            "--run",
            run,
            "--out",
            f"{here}/found",
        ],
        "serve": ["serve", run, "--root", here],
        "serve, configuration": ["serve", run, "--write-config", f"{here}/serve.yaml"],
        "drill": ["drill", "--storage", here],
    }
    reading = {"leaderboard show": ["leaderboard", "show", here]}
    evaluated = [["evaluate", run, "--data", data, "--threshold", "0.5"]]
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", COMMANDS],
        input=json.dumps([here, evaluated, [*writing.values(), *reading.values()]]),
        capture_output=True, text=True, timeout=800, check=True,
    )  # fmt: skip
    found = dict(zip(["evaluated", *writing, *reading], json.loads(done.stdout), strict=True))
    assert found.pop("evaluated")[0] == 0
    assert found.pop("leaderboard show")[0] == 0
    assert {name: code for name, (code, _) in found.items()} == dict.fromkeys(writing, 2)
    errors = {
        name: [line for line in said if line.startswith("error: ")] for name, (_, said) in found.items()
    }
    assert {name: len(lines) for name, lines in errors.items()} == dict.fromkeys(writing, 1)
    for [line] in errors.values():
        assert here in line
        assert "read-only" in line.lower()
        assert "name" in line.rpartition(";")[2], "the remedy"
    assert not Path(elsewhere).exists()
