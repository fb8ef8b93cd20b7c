"""The campaign: every row has a recipe, every claim its rows; what is trained once stays trained."""

import json
from pathlib import Path

import pytest
from benchmarks import cirl_figures
from benchmarks.campaign.__main__ import main
from benchmarks.campaign.rows import CLAIMS, ROWS
from benchmarks.campaign.training import recipe_of

from fissura.core.errors import DataError
from fissura.data.synthetic import SyntheticSpec, write
from fissura.segmentation.recipe import Recipe


@pytest.mark.parametrize("profile", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_every_row_is_a_recipe_from_random_weights(profile: str) -> None:
    recipes = {row.name: recipe_of(row, profile=profile) for row in ROWS}
    assert len(recipes) == len(ROWS)
    assert len({recipe.configuration for recipe in recipes.values()}) == len(ROWS)
    assert {recipe.model.weights for recipe in recipes.values() if isinstance(recipe, Recipe)} == {"none"}


def test_every_claim_is_of_two_rows() -> None:
    names = {row.name for row in ROWS}
    for claim in CLAIMS:
        assert {claim.better, claim.worse} <= names
        assert claim.better != claim.worse


@pytest.mark.slow
def test_rows_are_trained_once_ranked_and_compared_on_each_other_s_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = []
    for name, seed in (("bridge", 1), ("road", 2)):
        spec = SyntheticSpec(train=4, val=2, test=2, height=96, width=96, seed=seed)
        write(spec, tmp_path / name)
        data += ["--data", f"synthetic:{tmp_path / name}"]
    out = tmp_path / "out"
    words = [*data, "--minutes", "0.02", "--rows", "U-Net, BCE", "U-Net + CIRL", "--out", str(out)]
    assert main([*words, "--plan"]) == 0
    planned = (out / "plan.json").read_text()
    assert len(json.loads(planned)) == 4
    assert not (out / "runs").exists()
    assert main(words) == 0
    assert (out / "plan.json").read_text() == planned
    report, runs = (out / "campaign.md").read_text(), list((out / "runs").iterdir())
    assert len(runs) == 4
    for part in (
        "## synthetic bridge, pixel", "## synthetic road, tolerant:2", "## On each other's data: pixel F1",
        "| U-Net + CIRL | synthetic road | ",
        "| Chen et al., CIRL | U-Net + CIRL | U-Net, BCE | synthetic bridge, pixel | ",
    ):  # fmt: skip
        assert part in report
    changed = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert main(words) == 0
    assert (out / "campaign.md").read_text() == report
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == changed

    trained = [path.parent for path in (out / "runs").glob("*/variance.safetensors")]
    of_bridge = [str(run) for run in trained if "bridge" in (run / "manifest.json").read_text()]
    monkeypatch.setattr("sys.argv", ["", *of_bridge, "--data", data[1], "--out", str(tmp_path / "cirl.html")])
    cirl_figures.main()
    page = (tmp_path / "cirl.html").read_text()
    assert page.count("unet: ambiguity_aware wasserstein, clustering bound") >= 5  # 4 images and their plot


def test_a_row_that_cannot_be_trained_is_named_and_stops_no_other(tmp_path: Path) -> None:
    write(SyntheticSpec(train=1, val=1, test=1, height=64, width=64), tmp_path / "data")
    words = ["--data", f"synthetic:{tmp_path / 'data'}", "--profile", "huge", "--out", str(tmp_path / "out")]
    assert main([*words, "--rows", "U-Net, BCE", "JTFN, BCE"]) == 0
    report = (tmp_path / "out" / "campaign.md").read_text()
    assert "## Not trained" in report
    assert report.count("seed 0: ") == report.count("huge") == 2


def test_data_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        main(["--data", f"synthetic:{tmp_path / 'nowhere'}", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
