"""The command line's own promises: help whose examples work, one JSON document, exit codes, a quick start."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import typer
from PIL import Image

from fissura.cli.app import app
from fissura.cli.options import parse_sets
from fissura.core.errors import DataError, Interrupted
from fissura.data.check import parse_source
from fissura.data.datasets import kinds
from fissura.data.labelled import labelled_kinds
from fissura.distributed.search.search_result import SearchResult
from fissura.losses import AnyLoss
from fissura.metrics import parse_protocol
from fissura.models import AnyModel
from fissura.recipes import RECIPES
from fissura.spaces.fields import override
from fissura.spaces.load import search_spaces

PROGRAM = "import sys; from fissura.cli import main; sys.argv[0] = 'fissura'; main()"


def subcommands(command, *path):
    """Every command and group below `command`, itself among them, by the words that lead to it."""
    found = {path: command}
    for name, inner in getattr(command, "commands", {}).items():
        found |= subcommands(inner, *path, name)
    return found


COMMANDS = subcommands(typer.main.get_command(app))
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "commands")}
spelled = " ".join


@pytest.fixture
def folder(tmp_path, rng):
    """Eight images of 32x32 with masks: `folder:ROOT`."""
    root = tmp_path / "bridge"
    for index in range(8):
        mask = np.zeros((32, 32), np.uint8)
        mask[8 + index : 11 + index] = 255
        for name, array in (("images", rng.integers(0, 256, (32, 32, 3), np.uint8)), ("masks", mask)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / f"{index:03}.png")
    return f"folder:{root}"


def example(fissura, path, monkeypatch):
    """The words of the example in the help on an 80-column terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, said = fissura(*path, "--help")
    assert (code, said) == (0, [])
    (line,) = re.findall(r"Example: (.+?) *$", out, re.MULTILINE)
    return shlex.split(line)


def parsed(words):
    """The arguments that a command line amounts to, read by the command's own parser; nothing is run."""
    program, *words = words
    assert program == "fissura"
    command = COMMANDS[()]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command.make_context("fissura", words).params


def test_the_commands_are_these():
    assert {spelled(path) for path in LEAVES} == {
        "list",
        "data list",
        "data check",
        "data prepare",
        "data prune",
        "data fetch",
        "search",
        "plan",
        "train",
        "evaluate",
        "interference",
        "export",
        "serve",
        "rollout",
        "batch",
        "score",
        "leaderboard show",
        "leaderboard export",
        "report",
        "verify",
        "repair",
        "dashboard",
        "doctor",
        "drill",
        "demo",
        "spot-watch",
    }


def test_the_version_is_that_of_the_package(fissura):
    import fissura as package

    assert fissura("--version") == (0, f"fissura {package.__version__}\n", [])
    assert re.fullmatch(r"\d+\.\d+\.\d+", package.__version__)


@pytest.mark.parametrize("path", COMMANDS, ids=spelled)
def test_the_help_shows_an_example_that_parses(fissura, path, monkeypatch):
    words = example(fissura, path, monkeypatch)
    assert tuple(words[1 : 1 + len(path)]) == path
    parsed(words)


@pytest.mark.parametrize("path", LEAVES, ids=spelled)
def test_an_example_names_what_there_is(fissura, path, monkeypatch):
    given = parsed(example(fissura, path, monkeypatch))
    data = given.get("data") or ()
    for text in [data] if isinstance(data, str) else data:
        parse_source(text)
    assert given.get("space", "small_unet") in search_spaces()
    assert given.get("kind", "cfd") in (*kinds(), *labelled_kinds(), "latex")
    if "recipe" in given:
        override(RECIPES[given["recipe"]](), parse_sets(given["sets"]))
    for text in given.get("protocol") or ():
        parse_protocol(text)


@pytest.mark.parametrize("path", LEAVES, ids=spelled)
def test_every_command_prints_json_on_request_and_explains_each_option(path):
    options = [option for option in LEAVES[path].params if option.name != "help"]
    assert "--json" in [spelling for option in options for spelling in option.opts]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(
    "words",
    [
        ["list", "losses"],
        ["data", "list"],
        ["data", "list", "drive"],
        ["data", "check", "DATA"],
        ["data", "prepare", "DATA", "--cache", "cache"],
        ["data", "prune", "--keep", "0", "--cache", "cache"],
        ["data", "fetch", "synthetic", "drawn"],
    ],
    ids=spelled,
)
def test_json_is_one_document_and_all_there_is_on_standard_output(
    fissura, folder, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [folder if word == "DATA" else word for word in words]
    code, out, said = fissura(*words, "--json")
    assert code == 0
    assert said == (["Synthetic cracks: licence: Apache-2.0, as this project"] if "fetch" in words else [])
    assert json.loads(out)
    assert fissura(*words).out != out


def test_the_list_of_data_sets_names_every_kind_at_a_glance(fissura):
    _, out, _ = fissura("data", "list")
    lines = out.splitlines()
    every = [*kinds(), *labelled_kinds()]
    assert [line.split()[0] for line in lines[2 : 2 + len(every)]] == every
    assert len(lines) == len(every) + 4
    told = fissura("data", "list", "cfd").out
    info = kinds()["cfd"].info
    assert all(text in told for text in (info.title, info.layout, info.obtain, info.licence, info.citation))
    folder = fissura("data", "list", "folder").out
    assert all(f"{option}=" in folder for option in ("suffix", "threshold", "name", "test_share"))


def test_the_list_of_losses_says_where_each_was_published(fissura):
    out = fissura("list", "losses").out
    every = [loss.model_fields["kind"].default for loss in get_args(get_args(AnyLoss)[0])]
    assert [line.split()[0] for line in out.splitlines()[2:]] == every
    row = json.loads(fissura("list", "losses", "--json").out)[every.index("lin_focal")]
    assert (row["paper"], row["year"]) == ("Lin et al., ICCV", 2017)
    assert row["settings"] == {"gamma": 2.0, "alpha": 0.25}
    code, _, said = fissura("list", "lossses")
    assert code == 2
    assert said == [
        "error: `lossses` is nothing that is listed; did you mean `losses`?; known: losses, models, recipes"
    ]


def test_the_list_of_models_says_where_each_was_published_its_size_and_whose_its_weights_are(fissura):
    rows = json.loads(fissura("list", "models", "--json").out)
    assert {row["kind"] for row in rows} == {
        model.model_fields["kind"].default for model in get_args(get_args(AnyModel)[0])
    }
    (row,) = (row for row in rows if row["kind"] == "jtfn")
    assert (row["paper"], row["year"]) == ("Cheng et al., ICCV", 2021)
    assert (row["parameters"], row["imagenet_weights"]) == (41_926_369, None)
    assert row["settings"] == {"weights": "none", "width": 64, "blocks": "plain", "steps": 3}
    encoders = {row["variant"]: row for row in rows if row["kind"] == "backbone_unet"}
    assert len(encoders) == 11
    row = encoders["encoder=mit_b0"]
    assert (row["parameters"], row["imagenet_weights"]) == (3_438_817, "NVIDIA, non-commercial")


def test_the_list_of_recipes_says_what_each_is_of(fissura):
    rows = {row["recipe"]: row for row in json.loads(fissura("list", "recipes", "--json").out)}
    assert list(rows) == list(RECIPES)
    assert rows["cirl"]["paper"] == "Chen et al., CVPR"
    assert (rows["cnn_svm"]["task"], rows["cnn_svm"]["network"]) == ("classification", "mobilenet_v3")
    assert rows["cnn_svm"]["parameters"] == 2_971_952


def test_a_loss_that_is_not_there_is_answered_with_all_that_are(fissura, folder):
    setting = "phases.train.loss.kind=focal_lin"
    _, _, (said,) = fissura("train", "small_unet", "--data", folder, "--set", setting)
    assert said.startswith("error: `phases.train.loss.kind`: ")
    for loss in get_args(get_args(AnyLoss)[0]):
        assert loss.model_fields["kind"].default in said


def test_a_checked_data_set_with_defects_is_the_user_s_mistake_and_one_document(fissura, folder):
    (Path(folder.partition(":")[2]) / "masks" / "003.png").unlink()
    code, out, said = fissura("data", "check", folder, "--json")
    assert (code, said) == (2, [])
    assert len(json.loads(out)["problems"]) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["serach"], "error: no such command 'serach'. Did you mean 'search'?; see `fissura --help`"),
        (["score"], "error: missing argument 'PREDICTIONS'; see `fissura score --help`"),
        (["score", "a", "b"], "error: missing option '--protocol'; see `fissura score --help`"),
        (["data", "list", "--jsn"], "error: no such option: --jsn"),
        (["leaderboard", "export", "x", "--format", "a"], "error: invalid value for '--format': 'a' is not"),
        (
            ["search", "small_unet", "--trials", "0"],
            "error: invalid value for '--trials': must be at least 1 (got '0'); see",
        ),
        (
            ["search", "small_unet", "--trials", "1.5"],
            "error: invalid value for '--trials': must be a whole number (got '1.5'); see",
        ),
        (["search", "small_unet", "--trials"], "error: option '--trials' requires an argument"),
        (
            ["score", "a", "b", "--protocol", "pixel", "--protocol", "tolerant:2"],
            "error: --protocol: predictions are scored under one, and pixel and tolerant:2 are given; run it",
        ),
        (
            ["leaderboard", "export", "a", "--format", "csv", "--out", "b/best.csv"],
            "error: --out b/best.csv: is the folder that the files go to; name one, such as b",
        ),
        *(
            (
                [*words, "--threshold", value],
                "error: invalid value for '--threshold': a threshold is a probability from 0 to 1, such as"
                f" 0.3, not {value}; see",
            )
            for words in (
                ["score", "a", "b", "--protocol", "pixel"],
                ["evaluate", "a", "--data", "folder:b"],
                ["export", "a", "b"],
                ["serve", "a"],
                ["rollout", "a"],
            )
            for value in ("127", "nan", "half")
        ),
        (["demo", "much"], "error: got unexpected extra argument"),
    ],
    ids=lambda value: spelled(value) if isinstance(value, list) else "",
)
def test_a_command_line_that_does_not_parse_is_one_line_and_exit_code_2(fissura, words, line):
    code, out, said = fissura(*words)
    assert (code, out) == (2, "")
    assert len(said) == 1
    assert said[0].startswith(line)


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in LEAVES], ids=spelled)
def test_a_group_without_a_command_shows_its_help(fissura, path):
    code, out, said = fissura(*path)
    assert (code, said) == (2, [])
    assert out.strip() == fissura(*path, "--help").out.strip()


def test_several_problems_are_a_line_each_and_then_their_number(fissura, folder, tmp_path):
    words = ("train", "small_unet", "--data", folder, "--storage", tmp_path / "runs")
    code, out, said = fissura(*words, "--set", "model.width", "--set", "model.depth=1e1", "--json")
    assert (code, out) == (2, "")
    assert [line.split(":")[0] for line in said[:-1]] == ["error", "error"]
    assert said[-1] == "2 errors; nothing was started."


DENIED = "mend the permissions or the mount, or name another folder"
STOPPED = (
    "stopped at once; finished epochs and trials are kept: run the same command again, and a search with"
    " --resume"
)


def fail_with(error):
    def report(*_, **__):
        raise error

    return report


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (DataError("a", "b"), 2, ["error: a", "error: b", "2 errors; nothing was started."]),
        (Interrupted("stopped after step 3"), 1, ["stopped: stopped after step 3"]),
        (KeyboardInterrupt(), 1, [STOPPED]),
        (
            OSError(errno.ENOSPC, "Full", "/s/a"),
            1,
            ["failed: /s/a: Full; free some space or mend the folder, then go on"],
        ),
        (OSError(errno.EROFS, "Read-only", "/s/a"), 2, [f"error: /s/a: Read-only; {DENIED}"]),
        (PermissionError(errno.EACCES, "Denied", "/s/a"), 2, [f"error: /s/a: Denied; {DENIED}"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_end_has_its_exit_code(fissura, monkeypatch, error, code, lines):
    monkeypatch.setattr("fissura.api.report", fail_with(error))
    assert fissura("report", "study") == (code, "", lines)


def test_a_defect_of_the_program_is_one_line_and_its_traceback_a_file(fissura, monkeypatch):
    monkeypatch.setattr("fissura.api.report", fail_with(KeyError("a\nb")))
    code, out, said = fissura("report", "study", "--json")
    assert (code, out) == (1, "")
    assert len(said) == 1
    start, _, place = said[0].partition("; the traceback is in ")
    assert start == r"failed: KeyError: 'a\nb'"
    traceback = Path(place).read_text(encoding="utf-8")
    Path(place).unlink()
    assert traceback.startswith("Traceback (most recent call last)")
    assert "in report" in traceback


def test_the_folder_that_ray_leaves_behind_a_defect_is_named(fissura, monkeypatch):
    error = KeyError("a")
    error.add_note("Ray's logs are in /tmp/ray-abcdefgh")
    monkeypatch.setattr("fissura.api.report", fail_with(error))
    (line,) = fissura("report", "study").said
    assert line.endswith(".log; Ray's logs are in /tmp/ray-abcdefgh")
    Path(line.partition("; the traceback is in ")[2].partition(";")[0]).unlink()


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["demo", "--dir", "d e", "--trials", "3"], "fissura demo --dir 'd e' --trials 3"),
        (
            ["search", "small_unet", "--data", "synthetic:s"],
            "fissura search --resume --storage /studies --name s",
        ),
    ],
)
def test_a_search_that_was_stopped_names_the_command_that_goes_on(fissura, monkeypatch, words, again):
    nothing = SimpleNamespace(board=SimpleNamespace(tables=(), plain=dict), files=())
    stopped = SearchResult(Path("/studies/s"), 3, {}, None, True, 1.0, nothing, {})
    monkeypatch.setattr("fissura.distributed.environment.prepare_environment", lambda _: None)
    for verb in ("demo", "search"):
        monkeypatch.setattr(f"fissura.api.{verb}", lambda *_, **__: stopped)
    code, out, _ = fissura(*words)
    assert code == 1
    assert out.splitlines()[-1] == f"stopped on request; go on with: {again}"


def test_help_and_score_start_without_the_heavy_libraries(tmp_path):
    for name in ("predictions", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(tmp_path / name / "a.png")
    code = (
        "import sys; from fissura.cli.app import run; code = run(sys.argv[1:]);"
        "heavy = 'torch ray optuna pandas sklearn plotly albumentations cv2 pyarrow timm'.split();"
        "print(code, [name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    score = ["score", "predictions", "masks", "--protocol", "flexible:2"]
    for words in (["--help"], ["data", "list"], score):
        command = [sys.executable, "-c", code, *words]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ran.stderr.splitlines()[-1] == "0 []"


def test_a_pipe_that_closes_early_is_no_error_to_read_about():
    command = [sys.executable, "-c", PROGRAM, "data", "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_terminal_gets_a_progress_bar_on_standard_error_alone(folder, tmp_path):
    terminal, end = os.openpty()
    words = ["data", "prepare", folder, "--cache", str(tmp_path / "cache")]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, stderr=end, text=True, check=True
    )
    shown = os.read(terminal, 1 << 16).decode()
    os.close(end)
    os.close(terminal)
    assert "preparing images" in shown
    assert "8/8" in shown
    assert re.fullmatch(r"5 train, 1 val, 2 test: \S+\n", ran.stdout)


def test_fetching_tells_where_to_go_on(fissura, tmp_path):
    code, out, said = fissura("data", "fetch", "synthetic", tmp_path / "drawn")
    assert code == 0
    assert any("licence: Apache-2.0" in line for line in said)
    following = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert fissura(*following[1:]).code == 0
