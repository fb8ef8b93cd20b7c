"""What the commands that train print: one document with `--json`, next steps that work without."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fissura.data.synthetic import SyntheticSpec, write

TINY = (
    "model.width=4",
    "model.depth=1",
    "epochs=2",
    "data.crop.size=32",
    "data.crop.per_image=1",
)
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with eight tiny synthetic images in `images`."""
    root = tmp_path_factory.mktemp("work")
    write(SyntheticSpec(train=4, val=2, test=2, height=32, width=32, crack_width=(1.5, 4)), root / "images")
    return root


def words_of(place, command, *words):
    return [command, *words, "--data", f"synthetic:{place / 'images'}"]


def train(fissura, place, *words):
    given = words_of(place, "train", "small_unet", *SETTINGS, "--storage", place / "studies")
    return fissura(*given, "--cache", place / "cache", *words)


def test_train_tells_each_epoch_and_then_where_the_run_is_and_what_comes_next(fissura, place):
    code, out, said = train(fissura, place)
    assert code == 0
    begin = "training small_unet on 4 training images and 2 validation images"
    assert [line.split(":")[0] for line in said] == [begin, "epoch 1/2", "epoch 2/2"]
    run, best, following = out.splitlines()
    assert Path(run.removeprefix("run: "), "weights.safetensors").is_file()
    assert best.startswith("best epoch ")
    assert " of 2, " in best
    code, out, said = fissura(*shlex.split(following.removeprefix("next: fissura ")))
    assert (code, said) == (0, [])
    assert re.search(r"^images \([0-9a-f]{8}\) test, tolerant:2, 2 images$", out, flags=re.MULTILINE)


def test_train_does_not_train_a_finished_run_again_and_describes_it(fissura, place):
    before = json.loads(train(fissura, place, "--json").out)
    code, out, said = train(fissura, place, "--json")
    assert (code, said) == (0, [])
    assert json.loads(out) == before
    assert before["epochs"] == 2
    assert before["recipe"]["model"]["width"] == 4


def test_the_commands_about_a_run_print_one_document(fissura, place):
    run = json.loads(train(fissura, place, "--json").out)["run"]
    words = words_of(place, "evaluate", run, "--protocol", "pixel", "--protocol", "flexible:2", "--json")
    code, out, said = fissura(*words)
    evaluated = json.loads(out)
    assert (code, said) == (0, [])
    assert {"pixel", "flexible:2"} <= {row["protocol"] for row in evaluated["scores"]}
    assert len(list(Path(evaluated["maps"]).rglob("*.png"))) == 2
    code, out, said = fissura("leaderboard", "show", place / "studies", "--json")
    assert (code, said) == (0, [])
    assert json.loads(out) == evaluated["scores"]
    for kind in ("parquet", "csv", "md", "html", "latex"):
        code, out, said = fissura(
            "leaderboard", "export", run, "--format", kind, "--out", place / kind, "--json"
        )
        assert (code, said) == (0, [])
        (file,) = json.loads(out)["files"]
        assert Path(file).parent == place / kind
        assert Path(file).stat().st_size > 0


@pytest.mark.slow  # the quick suite reads the documents of the searches of test_search.py
def test_a_search_and_its_report_print_one_document_whatever_ray_says(place):
    storage = place / "searched"
    words = words_of(place, "search", "small_unet", *SETTINGS, "--trials", "1", "--concurrency", "1")
    study = storage / "small_unet"
    for command in (
        [*words, "--storage", str(storage), "--cache", str(place / "cache")],
        ["report", str(study)],
    ):
        program = Path(sys.executable).with_name("fissura")
        ran = subprocess.run([program, *command, "--json"], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout[:1]) == (0, "{"), ran.stderr
        document = json.loads(ran.stdout)
        if command[0] == "search":
            assert (document["study"], document["planned"], document["trials"]) == (
                str(study),
                1,
                {"complete": 1},
            )
            assert {row["dataset"] for row in document["leaderboard"]} == {"synthetic"}
            assert all(Path(file).is_file() for file in document["files"])
        else:
            assert document == {"report": str(study / "report.html")}
