"""`evaluate` prints what was asked for first, and then what the run was scored on before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., Any]


@pytest.fixture
def bridge(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with two test images of a dark line, with their masks."""
    for name in ("a", "b"):
        mask = np.zeros((32, 48), np.uint8)
        mask[15:18] = 255
        noise = rng.integers(150, 200, (32, 48, 3)).astype(np.uint8)
        for kind, pixels in (("images", np.where(mask[..., None] > 0, 40, noise)), ("masks", mask)):
            (tmp_path / "bridge" / kind / "test").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "bridge" / kind / "test" / f"{name}.png")
    return tmp_path / "bridge"


def test_a_segmenter_s_asked_protocol_stands_before_those_it_was_scored_by_earlier(
    fissura: Run, bridge: Path, segmenter_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(segmenter_run, tmp_path / segmenter_run.name))
    words = ("evaluate", run, "--data", f"folder:{bridge}", "--threshold", "0.5")
    first = fissura(*words, "--protocol", "pixel")
    assert first.code == 0, first.said
    assert "scored before" not in first.out
    second = fissura(*words, "--protocol", "tolerant:2")
    assert second.code == 0, second.said
    asked, _, before = second.out.partition("scored before:")
    assert "tolerant:2" in asked.splitlines()[0]
    assert "pixel" not in asked
    assert ", pixel" in before
    plain = json.loads(fissura(*words, "--protocol", "tolerant:2", "--json").out)
    assert [row["protocol"] for row in plain["asked"]] == ["tolerant:2"]
    assert {row["protocol"] for row in plain["scores"]} == {"pixel", "tolerant:2"}


def test_a_classifier_s_asked_condition_stands_before_the_others(
    fissura: Run, classifier_run: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    run = Path(shutil.copytree(classifier_run, tmp_path / classifier_run.name))
    for level, grey in (("crack", 40), ("sound", 200)):
        (tmp_path / "walls" / level).mkdir(parents=True)
        for number in range(12):
            pixels = (grey + rng.integers(-30, 30, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "walls" / level / f"{level}-{number}.png")
    words = ("evaluate", run, "--data", f"class_folder:{tmp_path / 'walls'}")
    assert fissura(*words).code == 0
    done = fissura(*words, "--condition", "shadow")
    assert done.code == 0, done.said
    asked, _, before = done.out.partition("scored before:")
    assert ", shadow," in asked.splitlines()[0]
    assert (", clean," in asked, ", clean," in before) == (False, True)
    plain = json.loads(fissura(*words, "--condition", "shadow", "--json").out)
    assert [row["condition"] for row in plain["asked"]] == ["shadow"]
    assert {row["condition"] for row in plain["scores"]} == {"clean", "shadow"}
