"""A search survives what happens to its processes: real drivers, Ray and signals, on tiny images."""

import html
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fissura.core.files import sqlite_uri
from fissura.data.synthetic import SyntheticSpec, write
from fissura.models import UNet

FISSURA = str(Path(sys.executable).with_name("fissura"))
SMALL = ("--set", "model.width=4", "--set", "data.crop.size=32", "--set", "data.crop.per_image=1")
PATIENCE_SECONDS = 150


@dataclass(frozen=True)
class Setting:
    """A folder to work in, with the images of all tests of this file."""

    folder: Path
    images: Path

    def command(self, *words: str) -> list[str]:
        """A `fissura search` over the images."""
        folders = ("--storage", str(self.folder / "studies"), "--cache", str(self.folder / "cache"))
        return [FISSURA, "search", *words, *folders]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Runs a search to its end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )

    @contextmanager
    def started(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """A running search in a session of its own; what is left of it at the end is killed."""
        with subprocess.Popen(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def new(self, *words: str) -> tuple[str, ...]:
        """The words of a new search."""
        return (*words, "--data", f"synthetic:{self.images}", *SMALL)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cracks"
    write(SyntheticSpec(train=6, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)), folder)
    return folder


@pytest.fixture
def setting(tmp_path: Path, images: Path) -> Setting:
    return Setting(tmp_path, images)


def trials(study: Path) -> list[tuple[int, str]]:
    """(number, state) of each trial that is in the database now."""
    if not (study / "study.db").is_file():
        return []
    with sqlite3.connect(f"{sqlite_uri(study / 'study.db')}?mode=ro", uri=True) as database:
        try:
            return list(database.execute("select number, state from trials order by number"))
        except sqlite3.OperationalError:
            return []


def ended(study: Path) -> dict[int, str]:
    return {number: state for number, state in trials(study) if state not in ("RUNNING", "WAITING")}


def running(study: Path) -> list[int]:
    return [number for number, state in trials(study) if state == "RUNNING"]


def runs_begun(study: Path) -> list[str]:
    """The runs in the order in which the log says that they began."""
    log = (study / "search.log").read_text(encoding="utf-8")
    return [line.rsplit(" ", 1)[1] for line in log.splitlines() if " begins as run " in line]


def epochs_logged(study: Path, trial: int) -> list[int]:
    if not (study / "search.log").is_file():
        return []
    log = (study / "search.log").read_text(encoding="utf-8")
    marks = [
        line.split(f" trial {trial} epoch ")[1]
        for line in log.splitlines()
        if f" trial {trial} epoch " in line
    ]
    return [int(mark.split(":")[0]) for mark in marks if "interrupted" not in mark]


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert process.poll() is None, f"the search ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "the search did not get that far"
        time.sleep(0.1)


@pytest.mark.end_to_end
class TestASearchThatIsStoppedAndKilled:
    """Ctrl-C, then `--resume`; kill -9 of the trials' processes, then of the driver; then `--extend`."""

    EPOCHS = 30

    def test_goes_on_each_time_and_repeats_nothing_that_ended(self, setting: Setting) -> None:
        study = setting.folder / "studies" / "small_unet"
        words = ("--trials", "5", "--set", f"epochs={self.EPOCHS}", "--concurrency", "2")
        with setting.started(*setting.new("small_unet", *words)) as process:
            wait_for(lambda: len(epochs_logged(study, 0)) >= 2, process)
            # a terminal sends Ctrl-C to the whole group
            os.killpg(process.pid, signal.SIGINT)
            stopped_as_asked(study, process)
        interrupted = running(study)
        done = epochs_logged(study, 0)

        with setting.started("--resume") as process:
            wait_for(lambda: len(epochs_logged(study, 0)) > len(done), process)
            assert epochs_logged(study, 0)[len(done)] in (done[-1] + 1, done[-1] + 2), "no epoch again"
            interrupted += running(study)
            kill_workers(process)
            wait_for(lambda: len(ended(study)) >= 2 and running(study) != [], process)
            process.kill()
            process.wait()
        finished = ended(study)
        interrupted += running(study)

        again = setting.run("--extend", "1", "--json")

        assert again.returncode == 0, again.stderr
        result = json.loads(again.stdout)
        assert result["planned"] == 6
        assert result["trials"].keys() <= {"complete", "pruned"}
        after = dict(trials(study))
        assert {number: after[number] for number in finished} == finished
        assert set(after) == set(range(6)), (
            "interrupted trials go on under their own number, and one is added"
        )
        assert set(after.values()) <= {"COMPLETE", "PRUNED"}
        begun = runs_begun(study)
        assert len(begun) - len(set(begun)) <= len(interrupted), "only interrupted trials begin again"
        for number, state in after.items():
            epochs = epochs_logged(study, number)
            assert state == "PRUNED" or epochs[-1] == self.EPOCHS
            assert len(epochs) <= len(set(epochs)) + interrupted.count(number), "at most one epoch each time"
        for name in (*(f"leaderboard.{kind}" for kind in ("parquet", "csv", "md", "html")), "report.html"):
            assert (study / name).is_file()
        assert not list(study.rglob("*.tmp"))

    @pytest.mark.slow
    def test_is_told_to_stop_by_a_supervisor_too(self, setting: Setting) -> None:
        study = setting.folder / "studies" / "small_unet"
        words = setting.new("small_unet", "--trials", "2", "--set", "epochs=400", "--concurrency", "1")
        with setting.started(*words) as process:
            wait_for(lambda: len(epochs_logged(study, 0)) >= 2, process)
            # which sends SIGTERM to the driver alone
            process.terminate()
            stopped_as_asked(study, process)
        assert dict(trials(study)) == {0: "RUNNING"}

    @pytest.mark.slow
    def test_fails_a_trial_whose_process_is_killed_again_and_again(self, setting: Setting) -> None:
        study = setting.folder / "studies" / "small_unet"
        words = setting.new("small_unet", "--trials", "2", "--set", "epochs=30", "--concurrency", "1")
        with setting.started(*words, "--json") as process:
            for epoch in (3, 6):
                wait_for(lambda epoch=epoch: max(epochs_logged(study, 0), default=0) >= epoch, process)
                kill_workers(process)
            out, err = process.communicate(timeout=PATIENCE_SECONDS)

        assert process.returncode == 0, err
        result = json.loads(out)
        assert (result["trials"]["fail"], sum(result["trials"].values())) == (1, 2), "the other one ended"
        assert "the trial's process ended" in result["failures"]["0"]


def stopped_as_asked(study: Path, process: "subprocess.Popen[str]") -> None:
    """The driver ends with what there is: running trials saved, the results so far written."""
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, err
    assert "go on with" in out
    assert set(running(study)) >= {0}
    assert (study / "leaderboard.md").is_file()
    assert (study / "report.html").is_file()
    assert not (study / "stop").exists()
    states = list((study / "runs").glob("*/state.safetensors"))
    assert len(states) >= 1
    assert all(state.stat().st_size > 0 for state in states)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Setting:
    """A folder whose name means something to URLs, patterns and shells."""
    folder = tmp_path_factory.mktemp("q") / "only" / "wall?1 %20#[a]*'é"
    folder.mkdir(parents=True)
    return Setting(folder, Path(shutil.copytree(images, folder.parents[1] / "cracks ?#'é")))


@pytest.fixture(scope="module")
def searched(odd: Setting) -> "tuple[Path, subprocess.CompletedProcess[str]]":
    """A search of the user's own space, half of whose four configurations begin with NaN; then that space is
    removed. Gives its study."""
    network = UNet(width=4, depth=2).build()
    poisoned = {name: torch.full_like(value, torch.nan) if value.is_floating_point() else value
                for name, value in network.state_dict().items()}  # fmt: skip
    weights, space = odd.folder.parent / "nan.safetensors", odd.folder / "mine.yaml"
    save_file(poisoned, weights)
    space.write_text(
        "recipe: small_unet\n"
        "objective: {metric: val/f1, mode: max}\n"
        "sampler: {kind: random, seed: 1}\n"
        "space:\n"
        f"  model.weights: {{choice: [none, {weights}]}}\n"
        "  data.batch_size: {choice: [4, 8]}\n"
        "profiles:\n"
        "  tiny: {model.depth: 2, epochs: 1}\n",
        encoding="utf-8",
    )
    run = odd.run(*odd.new(str(space), "--trials", "9", "--profile", "tiny", "--json"))
    space.unlink()
    return odd.folder / "studies" / "mine", run


@pytest.mark.end_to_end
class TestTrialsThatFail:
    def test_are_named_with_their_reason_and_never_end_the_search(
        self, searched: "tuple[Path, subprocess.CompletedProcess[str]]"
    ) -> None:
        study, run = searched
        assert run.returncode == 0, run.stderr
        result = json.loads(run.stdout)
        assert result["trials"] == {"complete": 2, "fail": 2}, "four configurations, none of them run twice"
        assert all("is nan" in reason for reason in result["failures"].values())
        assert len(runs_begun(study)) == len(set(runs_begun(study))) == 4
        told = subprocess.run(
            [FISSURA, "report", study, "--json"], capture_output=True, text=True, check=True
        )
        assert json.loads(told.stdout) == {"report": str(study / "report.html")}
        report = (study / "report.html").read_text(encoding="utf-8")
        assert "while training" in report
        assert "the training loss of step 1 of epoch 1 is nan" in report


@pytest.mark.end_to_end
class TestAFolderOfAnyName:
    def test_the_printed_command_searches_again_from_any_folder(
        self, odd: Setting, searched: "tuple[Path, subprocess.CompletedProcess[str]]", tmp_path: Path
    ) -> None:
        study, _ = searched
        report = (study / "report.html").read_text(encoding="utf-8")
        printed = html.unescape(re.findall(r"Run it again</h3><pre>(.*?)</pre>", report, re.DOTALL)[0])
        place = {"PATH": f"{Path(FISSURA).parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path)}

        again = subprocess.run(
            ["bash", "-c", printed], cwd=tmp_path, env={**os.environ, **place}, capture_output=True,
            text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip

        assert again.returncode == 0, again.stderr
        studies = study.parent
        assert sorted(path.name for path in studies.iterdir()) == ["mine", "mine-again"]
        assert trials(study) == trials(studies / "mine-again")
        assert set(runs_begun(study)) == set(runs_begun(studies / "mine-again")), "the same settings"
        assert sorted(path.name for path in odd.folder.parent.iterdir()) == [
            "nan.safetensors",
            odd.folder.name,
        ]
        assert sorted(path.name for path in odd.folder.iterdir()) == ["cache", "studies"]


@pytest.mark.slow
class TestSeveralObjectives:
    def test_give_a_pareto_front(self, setting: Setting) -> None:
        space = setting.folder / "front.yaml"
        space.write_text(
            "recipe: small_unet\n"
            "objective: [{metric: val/f1, mode: max}, {metric: parameters, mode: min}]\n"
            "space:\n"
            "  model.depth: {int: [2, 4]}\n"
            "profiles:\n"
            "  tiny: {epochs: 1}\n",
            encoding="utf-8",
        )

        run = setting.run(*setting.new(str(space), "--trials", "3", "--profile", "tiny", "--json"))

        assert run.returncode == 0, run.stderr
        result = json.loads(run.stdout)
        assert result["trials"] == {"complete": 3}
        assert result["best"]["values"].keys() == {"val/f1", "parameters"}


@pytest.mark.slow
class TestASweep:
    def test_varies_one_parameter_at_a_time_for_the_objectives_that_are_asked_for(
        self, setting: Setting
    ) -> None:
        objectives = ("--objective", "val/f1", "--objective", "parameters")
        words = setting.new("small_unet", "--set", "epochs=1", "--sweep", "2", "--over", "model.depth")

        run = setting.run(*words, *objectives, "--json")

        assert run.returncode == 0, run.stderr
        result = json.loads(run.stdout)
        assert result["trials"] == {"complete": 3}
        assert result["planned"] == 3
        assert result["best"]["values"].keys() == {"val/f1", "parameters"}
        assert "sweep: 2 trials, one parameter at a time" in run.stderr
        assert "every trial runs to its end" in run.stderr
        report = (setting.folder / "studies" / "small_unet" / "report.html").read_text(encoding="utf-8")
        assert "Pareto front" in report
        assert "rises by at most" in report


def kill_workers(search: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 30
    # a worker has no name of its own for the moment in which it takes its next trial over
    while not (workers := [pid for pid in _descendants(search.pid) if "Trainable" in _name(pid)]):
        assert time.monotonic() < end, "a trial trains in a Ray worker"
        time.sleep(0.05)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found, before = {pid}, 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def _name(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text()
    except OSError:
        return ""
