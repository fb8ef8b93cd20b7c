"""Bad input, as users meet it: one line with the file, the rule and the remedy, exit code 2, nothing left."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SPACE = """\
recipe: small_unet
objective: {metric: val/f1, mode: max}
trials: 4
space:
  model.width: {int: [4, 12], step: 4}
  phases.train.optimizer.lr: {float: [1.0e-4, 1.0e-2], log: true}
profiles:
  cpu:
    epochs: 1
"""


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def pixels(height=32, width=32):
    return np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3).astype(np.uint8)


def crack(height=32, width=32):
    return np.where(np.arange(height)[:, None] == 9, np.uint8(255), np.zeros((height, width), np.uint8))


@pytest.fixture
def bridge(tmp_path):
    """A good data set of eight images: `folder:ROOT`."""
    root = tmp_path / "bridge"
    for index in range(8):
        save(root / "images" / f"{index:03}.png", pixels() + np.uint8(index))
        save(root / "masks" / f"{index:03}.png", np.roll(crack(), index, axis=0))
    return root


def text(root):
    (root / "images" / "003.png").write_text("hello", encoding="utf-8")


def truncated(root):
    (root / "images" / "003.png").unlink()
    whole = root / "images" / "003.jpg"
    save(whole, pixels())
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def other_size(root):
    save(root / "masks" / "003.png", crack(16, 32))


def deep(root):
    save(root / "images" / "003.png", np.zeros((32, 32), np.uint16))


def palette(root):
    Image.fromarray(pixels()).convert("P").save(root / "images" / "003.png")


def palette_mask(root):
    coloured = np.zeros((*crack().shape, 3), np.uint8)
    coloured[crack() > 0], coloured[:4] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(coloured).quantize(3).save(root / "masks" / "003.png")


def grey_mask(root):
    save(root / "masks" / "003.png", crack() // 2 + np.roll(crack(), 5, axis=0))


def no_mask(root):
    (root / "masks" / "003.png").unlink()


def no_image(root):
    (root / "images" / "003.png").unlink()


def nothing(root):
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def no_folder(root):
    nothing(root)
    root.rmdir()


DEFECTS = [
    (text, "images/003.png", "an image is an intact PNG, JPEG, TIFF, BMP, GIF or WEBP file", "replace it"),
    (truncated, "images/003.jpg", "damaged or truncated", "fetch or copy it again"),
    (other_size, "masks/003.png", "must have its image's size: it is 32x16", "draw the mask again or resize"),
    (deep, "images/003.png", "8-bit grey or RGB: this one holds more than 8 bits", "convert it to 8-bit RGB"),
    (palette, "images/003.png", "8-bit grey or RGB: this one holds palette colours", "convert it to 8-bit"),
    (palette_mask, "masks/003.png", "this one has 2 palette colours beside black", "save it as 8-bit grey"),
    (grey_mask, "masks/003.png", "this one holds 3 levels (0, 127, 255)", "save it again with two"),
    (
        no_mask,
        "images/003.png",
        "an image has a mask of its stem: there is none",
        "add it or remove the image",
    ),
    (
        no_image,
        "masks/003.png",
        "a mask has an image of its stem: there is none",
        "add it or remove the mask",
    ),
    (nothing, "", "the data set's folder is empty", "expected images/NAME.png and masks/NAME.png, JPEG"),
    (no_folder, "", "the data set's folder is missing", "expected images/NAME.png and masks/NAME.png, JPEG"),
]
COMMANDS = {
    "data check": ["data", "check", "DATA"],
    "data prepare": ["data", "prepare", "DATA", "--cache", "CACHE"],
    "search": ["search", "small_unet", "--data", "DATA", "--storage", "STORAGE", "--cache", "CACHE"],
    "train": ["train", "small_unet", "--data", "DATA", "--storage", "STORAGE", "--cache", "CACHE"],
}


class Place:
    """Where a command would leave something: its storage, its cache, Ray's session."""

    def __init__(self, root, fissura):
        self.storage, self.cache = root / "storage", root / "cache"
        self.ray = Path(os.environ["RAY_TMPDIR"])
        self.fissura = fissura

    def run(self, *words, data=()):
        """The lines that a refused command says."""
        names = {"STORAGE": self.storage, "CACHE": self.cache, "DATA": f"folder:{data}"}
        code, out, said = self.fissura(*(names.get(word, word) for word in words))
        assert code == 2
        return [*(line for line in out.splitlines() if line.startswith("error: ")), *said]

    def assert_nothing_is_left(self):
        """No study, no run, no prepared images, and no Ray was started. The memo of hashes is whole."""
        assert not self.storage.exists()
        assert list(self.ray.iterdir()) == []
        assert {path.name for path in self.cache.glob("*")} <= {"hashes.json"}
        for path in self.cache.glob("*"):
            json.loads(path.read_text(encoding="utf-8"))

    def refused(self, *words, data=()):
        """The one line, when it is one and nothing is left."""
        (line,) = self.run(*words, data=data)
        self.assert_nothing_is_left()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


@pytest.fixture(autouse=True)
def short_folder(monkeypatch):
    """Where a Ray would be seen: its sockets take no longer path."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def place(tmp_path, fissura):
    return Place(tmp_path, fissura)


# -- images, masks and folders


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("spoil", "file", "rule", "remedy"), DEFECTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_bad_file_is_one_line(place, bridge, words, spoil, file, rule, remedy):
    spoil(bridge)
    line = place.refused(*words, data=bridge)
    assert line.startswith(f"{bridge / file}: ")
    assert rule in line
    assert remedy in line


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_all_bad_files_are_named_at_once(place, bridge, words):
    text(bridge)
    save(bridge / "masks" / "005.png", crack(8, 8))
    first, second, last = [*place.run(*words, data=bridge), "2 errors; nothing was started."][:3]
    assert first.startswith(f"error: {bridge}/images/003.png: ")
    assert second.startswith(f"error: {bridge}/masks/005.png: ")
    assert last == "2 errors; nothing was started."
    place.assert_nothing_is_left()


@pytest.mark.parametrize("command", ["search", "train"])
def test_a_data_set_is_named_once(place, bridge, command):
    line = place.refused(*COMMANDS[command], "--data", "DATA", data=bridge)
    assert line == f"--data: {bridge} is named twice; name it once"


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("foldr:/x", "`foldr` is no kind; did you mean `folder:/x`? known: cfd, deepcrack, "),
        ("/x", "`/x` is no kind; did you mean `folder:/x`? known: cfd, "),
        ("./base", "`./base` is no kind; did you mean `folder:./base`? known: cfd, "),
        ("~/walls", "did you mean `folder:~/walls`?"),
        ("folder", "the root is missing; give its folder: `folder:/data/folder`"),
    ],
)
def test_a_data_set_is_named_by_kind_and_root(place, words, data, expected):
    line = place.refused(*(data if word == "DATA" else word for word in words))
    assert line.startswith(f"`{data}`: a data set is KIND:ROOT and ")
    assert expected in line


@pytest.mark.parametrize("command", ["search", "train"])
def test_results_go_into_a_folder(place, bridge, command):
    taken = bridge / "images" / "000.png"
    words = [taken if word == "STORAGE" else word for word in COMMANDS[command]]
    line = place.refused(*words, data=bridge)
    assert line == f"{taken}: results go into a folder, and {taken} is a file; name another folder"


# -- search spaces


@pytest.mark.parametrize(
    ("before", "after", "line", "problem"),
    [
        ("trials", "trails", 3, "`trails` is not a key here; did you mean `trials`?"),
        (
            "trials: 4",
            'trials: "4"',
            3,
            "`trials`: must be a whole number (got '4'); write it without quotes",
        ),
        ("trials: 4", "trials: 4\ntrials: 5", 4, "`trials` is given twice, first in line 3; remove one"),
        ("1.0e-4", "1e-5", 6, "`1e-5` would be read as text, not as a number; write 1.0e-5"),
        (
            "[1.0e-4, 1.0e-2]",
            "[1.0e-2, 1.0e-4]",
            6,
            "`phases.train.optimizer.lr`: low 0.01 must be below high 0.0001",
        ),
        ("small_unet", "smal_unet", 1, "recipe `smal_unet` is not known; did you mean `small_unet`?"),
        (
            "model.width",
            "model.widht",
            5,
            "`model.widht` is not a field of recipe `small_unet`; did you mean",
        ),
        ("val/f1", "val/f2", 2, "`objective.metric`: 'val/f2' is not known; did you mean `val/f1`?; known: "),
        ("[4, 12]", "[4, 12", 5, "is not YAML: while parsing a flow sequence"),
        ("epochs: 1", "epochs: one", 9, "`epochs`: must be a whole number (got 'one')"),
    ],
)
def test_a_broken_search_space_is_one_line_with_its_line_number(
    place, bridge, tmp_path, before, after, line, problem
):
    file = tmp_path / "mine.yaml"
    file.write_text(SPACE.replace(before, after), encoding="utf-8")
    words = [str(file) if word == "small_unet" else word for word in COMMANDS["search"]]
    assert place.refused(*words, data=bridge).startswith(f"{file}:{line}: {problem}")


def test_the_search_space_of_these_tests_is_right_but_for_what_they_break(place, bridge, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(SPACE, encoding="utf-8")
    words = [str(file) if word == "small_unet" else word for word in COMMANDS["search"]]
    no_folder(bridge)
    assert place.refused(*words, data=bridge).startswith(f"{bridge}: the data set's folder is missing")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("smal_unet", "search space `smal_unet` is not known; did you mean `small_unet`?"),
        ("absent.yaml", "absent.yaml: there is no such file"),
        (".", "search space `.` is not known"),
    ],
)
def test_a_search_space_that_is_not_there(place, bridge, space, expected):
    words = [space if word == "small_unet" else word for word in COMMANDS["search"]]
    assert place.refused(*words, data=bridge).startswith(expected)


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.widht=8", "`model.widht` is not a field of recipe `small_unet`; did you mean `model.width`?"),
        ("model.width=eight", "`model.width`: must be a whole number (got 'eight')"),
        ("model.width=4096", "`model.width`: must be at most 256 (got 4096)"),
        ("model.width", "--set model.width: a setting is PATH=VALUE, such as `model.weights=none`"),
        ("=8", "--set =8: a setting is PATH=VALUE, such as `model.weights=none`"),
        (
            "phases.train.optimizer.lr=1e-3",
            "--set phases.train.optimizer.lr='1e-3': `1e-3` would be read as text, not as a number; write "
            "1.0e-3",
        ),
    ],
)
def test_a_setting_is_a_path_and_a_value_of_its_type(place, bridge, command, setting, expected):
    assert place.refused(*COMMANDS[command], "--set", setting, data=bridge) == expected


def test_a_setting_is_made_once(place, bridge):
    settings = ["--set", "model.width=4", "--set", "model.width=8"]
    line = place.refused(*COMMANDS["train"], *settings, data=bridge)
    assert line == "--set model.width=8: `model.width` is set twice; set it once"


def test_a_trial_fits_the_machine(place, bridge):
    line = place.refused(*COMMANDS["search"], "--cpus-per-trial", "100000", data=bridge)
    assert line.startswith("--cpus-per-trial 100000: a trial runs on one node, and the largest has ")


def test_a_profile_is_one_of_the_space_s(place, bridge, tmp_path):
    line = place.refused(*COMMANDS["search"], "--profile", "cpuu", data=bridge)
    assert line.endswith("profile `cpuu` is not known; known: demo")
    file = tmp_path / "mine.yaml"
    file.write_text(SPACE.split("profiles:")[0], encoding="utf-8")
    words = [str(file) if word == "small_unet" else word for word in COMMANDS["search"]]
    line = place.refused(*words, "--profile", "cpuu", data=bridge)
    assert line.endswith("profile `cpuu` is not known; the space has none, leave --profile out")
    file.write_text(SPACE, encoding="utf-8")
    words = [str(file) if word == "small_unet" else word for word in COMMANDS["search"]]
    line = place.refused(*words, "--profile", "cpuu", data=bridge)
    assert line == f"{file}:7: profile `cpuu` is not known; did you mean `cpu`?; known: cpu"


# -- studies and runs


@pytest.mark.parametrize("words", [["--resume"], ["--extend", 3]], ids=str)
def test_without_a_study_there_is_nothing_to_resume(place, words):
    line = place.refused("search", "--storage", "STORAGE", *words)
    assert line == f"{place.storage}: name a study's folder (one with a study.json); there is no such folder"


def test_a_named_study_that_is_not_there_is_not_another_one(place, tmp_path):
    other = tmp_path / "studies" / "other"
    other.mkdir(parents=True)
    (other / "study.json").write_text("{}", encoding="utf-8")
    words = ("search", "--resume", "--storage", other.parent, "--name", "mine")
    line = place.refused(*words)
    assert line.startswith(f"{other.parent / 'mine'}: no study lies here (no study.json)")


@pytest.mark.parametrize("name", ["../mine", "a/b", "..", "/mine", ""])
def test_a_study_has_the_name_of_one_folder(place, bridge, name):
    line = place.refused(*COMMANDS["search"], "--name", name, data=bridge)
    assert line.startswith(
        f"--name {name}: a study's name is that of one folder in --storage; write it in letters"
    )


def test_a_study_is_begun_once(place, bridge, tmp_path):
    study = tmp_path / "studies" / "small_unet"
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}", encoding="utf-8")
    words = [str(study.parent) if word == "STORAGE" else word for word in COMMANDS["search"]]
    line = place.refused(*words, data=bridge)
    assert line.startswith(
        f"{study}: a study lies here already; go on with --resume, add trials with --extend N"
    )
    assert [path.name for path in study.iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["search"], "name a search space, such as `unet_backbones`, or a YAML file; or go on with --resume"),
        (["search", "small_unet"], "--data: name at least one data set, such as `folder:/data/bridge`"),
        (
            ["train", "smal_unet", "--data", "folder:x"],
            "recipe `smal_unet` is not known; did you mean `small_unet`",
        ),
        (
            ["train", "absent.json", "--data", "folder:x"],
            "absent.json: cannot be read (No such file or directory)",
        ),
        (
            ["evaluate", "absent", "--data", "folder:x"],
            "PLACE/absent: there is no such folder; name the folder",
        ),
        (
            ["evaluate", "EMPTY", "--data", "folder:x"],
            "EMPTY: holds no finished run (no manifest.json); train it",
        ),
        (
            ["evaluate", "EMPTY", "--data", "cdf:x"],
            "`cdf:x`: a data set is KIND:ROOT and `cdf` is no kind; did",
        ),
        (["report", "EMPTY"], "EMPTY: name a study's folder (one with a study.json); no study lies there"),
        (
            ["report", "absent"],
            "absent: name a study's folder (one with a study.json); there is no such folder",
        ),
        (
            ["leaderboard", "show", "EMPTY"],
            "EMPTY: no evaluated run lies there; run `fissura evaluate` on one",
        ),
        (
            ["leaderboard", "show", "absent"],
            "absent: there is no such folder; name a study",
        ),
        (
            ["leaderboard", "export", "EMPTY", "--format", "md"],
            "EMPTY: no evaluated run lies there; run `fissura",
        ),
        (["data", "list", "cdf"], "`cdf` is no kind of data set; did you mean `cfd`?; known: cfd, "),
        (
            ["data", "fetch", "cdf", "x"],
            "`cdf` is no data set; did you mean `cfd`? (to be fetched: cfd, synthetic)",
        ),
        (
            ["data", "fetch", "drive", "x"],
            "`drive` cannot be fetched by this program; obtain it yourself: https",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_one_line(place, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    line = place.refused(*(str(empty) if word == "EMPTY" else word for word in words))
    assert line.startswith(expected.replace("EMPTY", str(empty)).replace("PLACE", str(tmp_path)))
    assert list(tmp_path.iterdir()) == [empty]


# -- predictions


@pytest.fixture
def scored(tmp_path):
    """Three predictions and their masks."""
    for name in "abc":
        save(tmp_path / "predictions" / f"{name}.png", crack())
        save(tmp_path / "masks" / f"{name}.png", crack())
    return tmp_path / "predictions", tmp_path / "masks"


def no_prediction(predictions, masks):
    (predictions / "b.png").unlink()
    return f"{masks}/b.png: a mask has a prediction of the same name; add {predictions}/b.png, or"


def unmatched_prediction(predictions, masks):
    (masks / "b.png").unlink()
    return f"{predictions}/b.png: a prediction has a mask of the same name; add {masks}/b.png, or remove"


def smaller_prediction(predictions, masks):
    save(predictions / "b.png", crack(16, 32))
    return f"{predictions}/b.png: a prediction is as large as its masks: this one is 32x16, "


def colour_prediction(predictions, masks):
    save(predictions / "b.png", pixels())
    return f"{predictions}/b.png: a prediction is an 8-bit grey PNG, value / 255 the probability: "


def text_prediction(predictions, masks):
    (predictions / "b.png").write_text("hello", encoding="utf-8")
    rule = "an image is an intact PNG, JPEG, TIFF, BMP, GIF or WEBP file whatever its name says"
    return f"{predictions}/b.png: {rule}: "


def grey_label(predictions, masks):
    save(masks / "b.png", crack() // 2 + np.eye(*crack().shape, dtype=np.uint8))
    return f"{masks}/b.png: a mask holds 0 (background) and one level of crack, such as 255: this one holds"


def no_predictions(predictions, masks):
    nothing(predictions)
    return (
        f"{predictions}: a folder of 8-bit grey PNG maps holds .png files: this one has none; mend the path"
    )


def no_masks(predictions, masks):
    no_folder(masks)
    return f"{masks}: a folder of masks is expected here: there is none; mend the path"


SPOILERS = [
    no_prediction,
    unmatched_prediction,
    smaller_prediction,
    colour_prediction,
    text_prediction,
    grey_label,
    no_predictions,
    no_masks,
]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_predictions_and_masks_match(place, scored, spoil):
    expected = spoil(*scored)
    assert place.refused("score", *scored, "--protocol", "tolerant:2", "--json").startswith(expected)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("tolerent:2", "no kind is named `tolerent`; did you mean `tolerant`?"),
        ("tolerant:two", "`two` is not a number; write one such as 2"),
        ("tolerant:-1", "`distance` is a number from 0 to 1,000 (got -1)"),
        ("pixel:2", "`pixel` is written `pixel`; leave out `:2`"),
        ("", "no kind is named ``; known: `pixel`"),
    ],
)
def test_a_protocol_is_written_as_its_kind_and_distance(place, scored, protocol, expected):
    line = place.refused("score", *scored, "--protocol", protocol)
    assert line.startswith(f"protocol `{protocol}`: {expected}")


# -- before anything starts


def in_a_process(*words, **environment):
    """(exit code, standard output, lines of standard error, seconds) of the program itself."""
    program = "import sys; from fissura.cli import main; main()"
    begin = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr.splitlines(), time.monotonic() - begin


@pytest.mark.end_to_end
def test_a_search_is_refused_before_a_ray_is_started(bridge, tmp_path, short_folder):
    text(bridge)
    words = ["search", "small_unet", "--data", f"folder:{bridge}", "--storage", tmp_path / "storage"]
    code, out, said, seconds = in_a_process(*words, "--cache", tmp_path / "cache")
    assert (code, out, len(said)) == (2, "", 1)
    assert said[0].startswith(f"error: {bridge}/images/003.png: ")
    assert not (tmp_path / "storage").exists()
    assert not list(short_folder.iterdir())
    assert seconds < 60


@pytest.mark.end_to_end
def test_weights_that_cannot_be_had_are_one_line(bridge, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        # nothing listens there, so every request by the proxy is refused at once
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        words = ["train", "unet_backbones", "--data", f"folder:{bridge}", "--storage", tmp_path / "storage"]
        code, out, said, _ = in_a_process(
            *words,
            "--cache",
            tmp_path / "cache",
            HF_HOME=str(tmp_path / "hub"),
            HTTPS_PROXY=proxy,
            https_proxy=proxy,
            NO_PROXY="",
            no_proxy="",
        )
    assert (code, out, len(said)) == (2, "", 1)
    assert re.match(
        r"error: `model.weights: imagenet`: the weights of xception \(\S+\) are not on this machine", said[0]
    )
    assert "set `model.weights` to none" in said[0]
    assert not (tmp_path / "storage").exists()
    assert not (tmp_path / "cache").exists()
