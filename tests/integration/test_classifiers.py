"""Classifiers from images to ranking: real Ray, a real backbone of random weights, tiny images."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fissura.studies.study import Study

FISSURA = str(Path(sys.executable).with_name("fissura"))
SMALL = ("--set", "backbone.weights=none", "--set", "backbone.input_size=32", "--set", "folds=3")


@dataclass(frozen=True)
class Place:
    """A folder to work in, and the images of all tests of this file."""

    folder: Path
    images: Path

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Runs one command to its end."""
        return subprocess.run(
            [FISSURA, *words, "--cache", str(self.folder / "cache")],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=self.folder,
        )

    @property
    def data(self) -> tuple[str, str]:
        """The words that name the images."""
        return "--data", f"class_folder:{self.images}"


def draw(folder: Path, *, cracked: int, plain: int) -> None:
    """Grey noise, with a dark line or without."""
    generator = np.random.default_rng(7)
    for label, count in (("crack", cracked), ("no_crack", plain)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = generator.normal(150, 15, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            if label == "crack":
                column = int(generator.integers(6, 26))
                pixels[:, column : column + 3] //= 4
            Image.fromarray(pixels).save(folder / label / f"{index:03d}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("classifiers")
    draw(root / "images", cracked=24, plain=24)
    (root / "images" / "crack" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    return Place(root, root / "images")


@pytest.fixture(scope="module")
def searched(place: Place) -> "tuple[dict, str]":
    """The outcome of a search of twelve settings, and what it said."""
    done = place.run("search", "cnn_svm", *place.data, *SMALL, "--set", "backbone.kind=mobilenet_v3",
                     "--profile", "none", "--trials", "12", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.end_to_end
class TestASearch:
    def test_every_setting_is_judged_and_the_papers_own_is_the_first(self, searched) -> None:
        result, _ = searched
        assert result["trials"] == {"complete": 12}
        assert result["failures"] == {}
        assert 0.5 < result["best"]["values"]["cv/f1"] <= 1

    def test_the_best_are_judged_on_the_test_images_with_intervals(self, searched) -> None:
        rows = searched[0]["leaderboard"]
        assert rows[0]["rank"] == 1
        assert {row["condition"] for row in rows} == {"clean"}
        assert all(row["scores"]["f1"]["low"] <= row["scores"]["f1"]["value"] for row in rows)

    def test_an_image_that_cannot_be_read_is_named_and_left_out(self, searched) -> None:
        result, said = searched
        assert "torn.png" in said
        scored = {
            name
            for path in Path(result["study"]).rglob("classes.parquet")
            for name in pq.read_table(path).column("image").to_pylist()
        }
        assert scored
        assert not any("torn" in name for name in scored)

    def test_the_report_shows_features_confusion_and_progress(self, searched) -> None:
        page = (Path(searched[0]["study"]) / "report.html").read_text(encoding="utf-8")
        for words in ("Confusion", "t-SNE", "Best", "no_crack"):
            assert words in page
        assert "in 3-fold cross-validation on the training split of images" in page
        assert page.count("<img ") == 6
        assert page.rindex("<img ") < page.index('class="plot"')
        for words in ("Worst: ", "Median: ", "Best: ", "Shadow: ", "Stain: ", "Low contrast: "):
            assert words in page
        assert "not judged" not in page

    def test_the_report_is_written_again_where_the_images_are_gone(
        self, place: Place, searched, fissura, tmp_path: Path
    ) -> None:
        study = Path(shutil.copytree(searched[0]["study"], tmp_path / "study"))
        away = place.images.rename(place.folder / "away")
        try:
            done = fissura("report", study)
        finally:
            away.rename(place.images)
        assert done.code == 0, done.said
        page = (study / "report.html").read_text(encoding="utf-8")
        assert "No pictures: " in page
        assert "Confusion" in page
        assert (study / "leaderboard.csv").read_text(encoding="utf-8").count("\n") > 1

    @pytest.mark.slow
    def test_it_can_be_extended_and_no_image_is_embedded_again(self, place: Place, searched) -> None:
        features = sorted((place.folder / "studies" / "features").rglob("*.parquet"))
        before = {path: path.stat().st_mtime_ns for path in features}
        done = place.run("search", "--extend", "4", "--name", "cnn_svm", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["trials"] == {"complete": 16}
        after = sorted((place.folder / "studies" / "features").rglob("*.parquet"))
        assert {path: path.stat().st_mtime_ns for path in after} == before

    @pytest.mark.slow
    def test_the_adaptive_rule_is_a_sampler_beside_it(self, place: Place, searched) -> None:
        text = (Path(__file__).parents[2] / "search_spaces" / "cnn_svm.yaml").read_text(encoding="utf-8")
        mine = place.folder / "adaptive.yaml"
        mine.write_text(
            text.replace("sampler: {kind: tpe, seed: 0, startup: 20}", "sampler: {kind: adaptive}")
        )
        fixed = ("--set", "backbone.kind=mobilenet_v3", "--set", "classifier.kind=svm")
        words = (*place.data, *SMALL, *fixed, "--profile", "none", "--trials", "6", "--json")
        done = place.run("search", str(mine), *words)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["trials"] == {"complete": 6}
        page = (Path(result["study"]) / "report.html").read_text(encoding="utf-8")
        assert "adaptive" in page
        assert "cnn_svm" in page


@pytest.mark.slow
class TestOneModel:
    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, place: Place) -> list[str]:
        """Two trained runs: without whitening, and with."""
        found = []
        for kind in ("none", "zca"):
            done = place.run(
                "train", "cnn_svm", *place.data, *SMALL, "--set", f"whitening.kind={kind}", "--json"
            )
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout)["run"])
        return found

    def test_training_again_gives_the_same_run(self, place: Place, runs: list[str]) -> None:
        again = place.run("train", "cnn_svm", *place.data, *SMALL, "--set", "whitening.kind=zca", "--json")
        assert json.loads(again.stdout)["run"] == runs[1]

    def test_a_run_holds_all_that_serving_it_needs(self, runs: list[str]) -> None:
        for run in runs:
            names = {path.name for path in Path(run).iterdir()}
            assert {"recipe.json", "weights.safetensors", "classifier.npz", "metrics.json"} <= names

    def test_interference_is_a_table_of_both_with_their_difference(
        self, place: Place, runs: list[str]
    ) -> None:
        done = place.run("interference", *runs, *place.data)
        assert done.returncode == 0, done.stderr
        assert "Interference F1" in done.stdout
        assert "what changed" in done.stdout

    def test_evaluating_says_accuracy_and_alarms(self, place: Place, runs: list[str]) -> None:
        done = place.run("evaluate", runs[0], *place.data, "--condition", "clean", "--json")
        (row,) = [one for one in json.loads(done.stdout)["scores"] if one["condition"] == "clean"]
        assert {"f1", "accuracy", "false_alarm_rate", "missed_alarm_rate"} <= set(row["scores"])

    def test_options_of_segmentation_are_refused(self, place: Place, runs: list[str]) -> None:
        done = place.run("evaluate", runs[0], *place.data, "--threshold", "0.5")
        assert done.returncode == 2
        assert "classifier" in done.stderr


@pytest.mark.slow
class TestAHead:
    """The network from end to end, wherever a machine or a forest goes."""

    LEARNT = (
        "--set", "backbone.kind=mobilenet_v3", "--set", "backbone.weights=trained", "--set", "folds=3",
        "--set", "backbone.input_size=32", "--set", "backbone_share=0.7", "--set", "training.epochs=2",
        "--set", "training.batch_size=8",
    )  # fmt: skip

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, place: Place) -> list[str]:
        """Two trained runs on one backbone: its head, and a machine."""
        found = []
        for kind in ("head", "svm"):
            words = ("--set", f"classifier.kind={kind}", "--json")
            done = place.run("train", "cnn_svm", *place.data, *cls.LEARNT, *words)
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout)["run"])
        return found

    def test_is_evaluated_ranked_and_exported(
        self, place: Place, runs: list[str], fissura: Callable[..., Any], tmp_path: Path
    ) -> None:
        (learnt,) = (place.folder / "studies" / "backbones").iterdir()
        assert (learnt / "head.safetensors").is_file(), "both runs have one backbone"
        done = place.run("interference", *runs, *place.data)
        assert done.returncode == 0, done.stderr
        ranked = fissura("leaderboard", "show", *runs, "--json")
        assert ranked.code == 0, ranked.said
        rows = json.loads(ranked.out)
        (of_head,) = (
            row for row in rows if Path(runs[0]).name in row["runs"] and row["condition"] == "clean"
        )
        assert of_head["classifier_bytes"] == (Path(runs[0]) / "classifier.npz").stat().st_size
        assert of_head["classifier_microseconds"] > 0
        exported = fissura("export", runs[0], "--to", "onnx", "--out", tmp_path / "bundle")
        assert exported.code == 0, exported.said
        done = subprocess.run(
            [sys.executable, "classify.py", str(place.images / "no_crack")],
            cwd=tmp_path / "bundle", capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert {line["class"] for line in lines} <= {"crack", "no_crack"}
        assert all(-1 <= line["score"] <= 1 for line in lines)

    def test_is_searched_beside_machines_and_forests(self, place: Place, runs: list[str]) -> None:
        done = place.run(
            "search", "cnn_svm", *place.data, *self.LEARNT, "--name", "three", "--profile", "end_to_end",
            "--trials", "10", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["trials"]["complete"], result["failures"]) == (10, {})
        trials = Study(Path(result["study"])).load().trials
        heads = [trial for trial in trials if trial.params["classifier.kind"] == "head" and trial.values]
        assert len(heads) == 1, "it has nothing to vary"
        assert heads[0].user_attrs["bytes"] > 0

    def test_of_an_earlier_version_s_backbone_says_what_to_do(self, place: Place, runs: list[str]) -> None:
        for folder in (place.folder / "studies" / "backbones").iterdir():
            plain = json.loads((folder / "backbone.json").read_text("utf-8"))
            del plain["head_sha256"]
            (folder / "backbone.json").write_text(json.dumps(plain), "utf-8")
            (folder / "head.safetensors").unlink()
        words = ("--set", "classifier.kind=head", "--set", "seed=0", "--set", "compression.bits=8")
        done = place.run("train", "cnn_svm", *place.data, *self.LEARNT, *words)
        assert done.returncode != 0
        assert "remove backbone.json there, then train again" in " ".join(done.stderr.split())


def test_one_class_alone_and_too_few_images_are_told_at_once(
    fissura: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "cnn_svm", *SMALL, "--cache", tmp_path / "cache", "--data")
    draw(tmp_path / "few", cracked=4, plain=2)
    few = fissura(*words, "class_folder:few", "--set", "folds=5")
    assert few.code == 2
    assert "folds" in " ".join(few.said)
    draw(tmp_path / "one", cracked=4, plain=0)
    one = fissura(*words, "class_folder:one")
    assert one.code == 2
    assert "class" in " ".join(one.said)
    assert not (tmp_path / "studies" / "runs").exists()
