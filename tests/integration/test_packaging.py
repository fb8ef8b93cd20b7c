"""What is installed from a wheel, outside of the checkout, and what runs where Ray is not installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fissura.data.synthetic import SyntheticSpec, write

ROOT = Path(__file__).parents[2]
WITHOUT_RAY = ROOT / "platform" / "without-ray.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what only Ray's part of fissura, the service and the viewers import
FOR_RAY = {
    *("ray", "aiohttp", "optuna", "sqlalchemy", "optuna-dashboard"),
    *("fastapi", "starlette", "uvicorn", "httptools", "python-multipart", "prometheus-client"),
}
# Ray, and what is installed for it alone, as if they were not there
BLOCKER = f"""
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{*{sorted(FOR_RAY)}, "prometheus_client"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
WHOLE_JOB = """
import json, sys
from pathlib import Path
import fissura
from fissura.recipes import RECIPES, load_recipe
data, storage = sys.argv[1:]
assert all(load_recipe(name).name == name for name in RECIPES)
fixed = {"epochs": 1, "model.width": 4, "model.depth": 2, "data.crop.size": 32, "data.crop.per_image": 1}
trained = fissura.train("small_unet", data=data, storage=storage, fixed=fixed, cache=f"{storage}/cache")
rows = fissura.evaluate(trained.run, data=data)
board = fissura.leaderboard(storage)
bundle = fissura.export(trained.run, out=f"{storage}/bundle", threshold=0.5)
print(json.dumps([str(trained.run), len(rows), str(board.best_run), "ray" in sys.modules]))
"""


def run(words: Sequence[str | Path], *, cwd: Path) -> str:
    """What a command prints, outside of the checkout and of this process's PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("platform", "search_spaces"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", folder, source], check=True)
    (built,) = folder.glob("fissura-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it, and the packages of this one beside it; gives its `bin`."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(place, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], cwd=place.parent)
    # last, so that pip did not see this environment's own fissura; its link to the checkout is not followed
    packages = next((place / "lib").glob("python*/site-packages"))
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "platform" / "fissura"
    # a glob does not go through the link to search_spaces/
    there = {f"fissura/{path.relative_to(package)}" for path in package.rglob("*") if path.is_file()}
    there |= {f"fissura/spaces/papers/{path.name}" for path in (ROOT / "search_spaces").glob("*.yaml")}
    wanted = {name for name in there if "__pycache__" not in name}
    assert sorted(wanted - set(zipfile.ZipFile(wheel).namelist())) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_wheel_runs_the_demo_in_an_environment_of_its_own(installed: Path, tmp_path: Path) -> None:
    shown = run([installed / "python", "-c", "import fissura; print(fissura.__file__)"], cwd=tmp_path)
    assert Path(shown.strip()).is_relative_to(installed.parent)
    assert run([installed / "fissura", "--version"], cwd=tmp_path) == f"fissura {PROJECT['version']}\n"
    run([installed / "fissura", "demo", "--dir", tmp_path / "demo", "--trials", "1"], cwd=tmp_path)
    assert (tmp_path / "demo" / "studies" / "demo" / "report.html").is_file()
    (trained,) = (tmp_path / "demo" / "studies").rglob("manifest.json")
    bundle = tmp_path / "bundle"
    run([installed / "fissura", "export", trained.parent, "--to", "onnx", "--out", bundle], cwd=tmp_path)
    assert (bundle / "segment.py").is_file()


def test_the_requirements_without_ray_are_the_package_s_own_less_those_for_ray() -> None:
    lines = [line for line in WITHOUT_RAY.read_text().splitlines() if line and not line.startswith("#")]
    own = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["edge"]]
    named = {canonicalize_name(Requirement(text).name): text for text in own}
    assert set(lines) == {text for name, text in named.items() if name not in FOR_RAY}
    assert re.search(r"pip install --no-deps", WITHOUT_RAY.read_text())


@pytest.mark.slow
def test_without_ray_recipes_train_are_evaluated_and_exported(tmp_path: Path) -> None:
    spec = SyntheticSpec(train=2, val=1, test=1, height=64, width=64, crack_width=(1.5, 4), seed=1)
    write(spec, tmp_path / "images")
    words = [f"synthetic:{tmp_path / 'images'}", str(tmp_path / "runs")]
    program = [sys.executable, "-c", BLOCKER + WHOLE_JOB]
    done = subprocess.run([*program, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trained, rows, best, loaded = json.loads(done.stdout.splitlines()[-1])
    assert (best, rows > 0, loaded) == (trained, True, False)
    assert (tmp_path / "runs" / "bundle" / "segment.py").is_file()
