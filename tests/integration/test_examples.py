"""Every example runs as it stands, on small drawn images."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import made_studies
from fissura.data.synthetic import SyntheticSpec, write

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs an example in this process; gives what it printed."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Drawn cracks: images/ and masks/ in splits."""
    spec = SyntheticSpec(train=2, val=1, test=1, height=96, width=96, crack_width=(1.5, 4), seed=1)
    write(spec, tmp_path / "own")
    return tmp_path / "own"


def test_every_example_is_run_and_says_how() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        assert f'"{path.name}"' in text
        assert f"python examples/{path.name}" in path.read_text()


def test_an_image_and_a_folder_are_scored(
    example: Callable[..., str], segmenter_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("one.png", "two.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(folder / name)
    out = example("score_images.py", segmenter_run, folder, tmp_path / "masks")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["one.png", "two.jpg"]
    with Image.open(tmp_path / "masks" / "two.png") as mask:
        assert mask.size == (60, 40)
    assert "two.jpg: " in example("score_images.py", segmenter_run, folder / "two.jpg", tmp_path / "masks")


def test_a_classifier_names_the_class(
    example: Callable[..., str], classifier_run: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((32, 32, 3), 40, np.uint8)).save(tmp_path / "dark.png")
    assert example("score_images.py", classifier_run, tmp_path / "dark.png", tmp_path) == "dark.png: crack\n"


@pytest.mark.end_to_end
def test_a_study_is_four_tables(example: Callable[..., str], tmp_path: Path) -> None:
    study = made_studies.segmentation(tmp_path)
    out = example("read_study.py", study.path)
    for column in ("params_phases.train.optimizer.lr", "rank", "val/f1", "crack_pixels"):
        assert column in out


@pytest.mark.end_to_end
def test_a_loss_outside_of_the_package_holds_the_contract_and_trains(drawn: Path, tmp_path: Path) -> None:
    """In a process of its own, as it widens the union."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "new_loss.py"), f"folder:{drawn}", str(tmp_path / "studies")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the loss holds what every loss is held to\n")
    (run,) = (tmp_path / "studies" / "runs").iterdir()
    assert '"jaccard"' in (run / "recipe.json").read_text()
    assert (run / "weights.safetensors").exists()


@pytest.mark.slow
def test_a_folder_of_one_s_own_is_searched(drawn: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "search_own_folder.py"), str(drawn), str(tmp_path / "studies"), "1"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 of 1 trial" in done.stdout
    assert "best run" in done.stdout or "run: " in done.stdout
