"""Every command of the README runs, as it stands there; long ones on small stand-ins for the images."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fissura.data.synthetic import SyntheticSpec, draw

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FISSURA = Path(sys.executable).with_name("fissura")
# what makes a paper's search small: the words are added to the README's own
SHRUNK = "--trials 1 --set epochs=1 --set data.crop.size=64 --cache cache"


def commands() -> list[str]:
    """The lines of the README's code blocks, without their comments."""
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [line.split("  #")[0].split(" # ")[0].strip() for block in blocks for line in block.splitlines()]


def in_a_process(folder: Path, words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [FISSURA, *shlex.split(words)],
        cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@contextmanager
def served(folder: Path, words: str) -> Iterator[str]:
    """The address of a service while it runs, on a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = subprocess.Popen(
        [FISSURA, *shlex.split(words), "--port", str(port)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        line = service.stdout.readline()
        assert line == f"serving at http://127.0.0.1:{port}\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        service.send_signal(signal.SIGINT)
        service.communicate(timeout=60)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `data/cfd` has CrackForest's layout: what the README's `data fetch` leaves there."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("image", "groundTruth"):
        (folder / "data/cfd" / name).mkdir(parents=True)
    drawings = (draw(SyntheticSpec(height=64, width=96), split="train", index=index) for index in count())
    cracked = (drawn for drawn in drawings if drawn.mask.any())  # as all of CrackForest's are
    for index, drawn in enumerate(islice(cracked, 10)):
        Image.fromarray(drawn.image).save(folder / f"data/cfd/image/{index + 1:03d}.jpg", quality=95)
        labels = {"Segmentation": (drawn.mask + 1).astype(np.uint8)}
        savemat(folder / f"data/cfd/groundTruth/{index + 1:03d}.mat", {"groundTruth": labels})
    return folder


def test_the_commands_are_those_that_are_run_here() -> None:
    assert commands() == [
        "make demo",
        "make test",
        ".venv/bin/fissura data fetch cfd data/cfd",
        ".venv/bin/fissura data check cfd:data/cfd",
        ".venv/bin/fissura search small_unet --data cfd:data/cfd --trials 12 --storage studies",
        ".venv/bin/fissura leaderboard show studies",
        ".venv/bin/fissura serve --best studies/small_unet",
        ".venv/bin/fissura batch data/cfd/image --endpoint http://127.0.0.1:8000 --out found",
    ]


def test_make_demo_and_make_test_do_what_they_say() -> None:
    demo = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"fissura\S* demo", demo)
    test = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(word in test for word in ("ruff", "mypy", "lint-imports", "pytest"))


@pytest.fixture
def here(
    fissura: Callable[..., Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """Runs a command line in `workplace`, in this process: what starts no Ray needs none of its own."""
    monkeypatch.chdir(workplace)
    return lambda words: fissura(*shlex.split(words))


def test_fetching_says_within_seconds_where_there_is_no_network(
    here: Callable[[str], Any], workplace: Path
) -> None:
    done = here("data fetch cfd data/fetched --mirror http://127.0.0.1:9/")
    assert done.code == 2
    assert "127.0.0.1" in done.said[-1]
    assert not (workplace / "data/fetched").exists()


@pytest.mark.end_to_end
def test_the_real_example_runs_to_a_leaderboard(here: Callable[[str], Any], workplace: Path) -> None:
    check, search, board = (line.split(" ", 1)[1] for line in commands()[3:6])

    checked = here(check)
    assert "samples:" in checked.out, checked.said
    searched = in_a_process(workplace, f"{search} {SHRUNK}")
    assert searched.returncode == 0, searched.stderr
    shown = here(board)
    assert shown.code == 0, shown.said
    assert re.search(r"cfd \([0-9a-f]{8}\) test, tolerant:2", shown.out)

    serve, batch = (line.split(" ", 1)[1] for line in commands()[6:8])
    with served(workplace, serve) as address:
        scored = here(batch.replace("http://127.0.0.1:8000", address))
    assert scored.code == 0, scored.said
    assert f"10 of 10 images, 0 failed: {Path('found/results.parquet')}" in scored.out

    for link in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / link).is_file(), f"the README links to {link}"


def test_the_plan_that_stands_in_a_sentence_is_made(here: Callable[[str], Any]) -> None:
    [words] = re.findall(r"`fissura (plan [^`]+)`", README)
    planned = here(words)
    assert planned.code == 0, planned.said
    assert "at a time" in planned.out


@pytest.mark.slow  # the quick suite runs the demo without its search
def test_the_demo_ranks_a_search_and_trains_nothing_twice(tmp_path: Path) -> None:
    first = in_a_process(tmp_path, "demo --dir demo --trials 2")
    assert first.returncode == 0, first.stderr
    study = tmp_path / "demo/studies/demo"
    for name in (
        "leaderboard.parquet",
        "leaderboard.csv",
        "leaderboard.md",
        "leaderboard.html",
        "report.html",
    ):
        assert str(study / name) in first.stdout
    trained = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/weights.safetensors")}
    assert trained

    second = in_a_process(tmp_path, "demo --dir demo --trials 2")
    assert second.returncode == 0, second.stderr
    assert {path: path.stat().st_mtime_ns for path in study.glob("runs/*/weights.safetensors")} == trained
