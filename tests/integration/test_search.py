"""A search survives what happens to its processes: real drivers, Ray and signals, on tiny images."""

import html
import json
import os
import re
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


class TestADriverThatIsKilled:
    def test_resumes_with_every_finished_trial_and_repeats_none(self, setting: Setting) -> None:
        study = setting.folder / "studies" / "small_unet"
        words = setting.new("small_unet", "--trials", "5", "--set", "epochs=12", "--concurrency", "2")
        with setting.started(*words) as process:
            wait_for(lambda: len(ended(study)) >= 2 and len(trials(study)) > len(ended(study)), process)
        before = dict(trials(study))
        finished = ended(study)

        again = setting.run("--extend", "1", "--json")

        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["planned"] == 6
        after = dict(trials(study))
        assert {number: after[number] for number in finished} == finished
        assert set(after) == set(range(6)), (
            "interrupted trials go on under their own number, and one is added"
        )
        assert set(after.values()) <= {"COMPLETE", "PRUNED"}
        begun = runs_begun(study)
        repeated = {run for run in begun if begun.count(run) > 1}
        assert len(repeated) <= len(before) - len(finished), "only interrupted trials begin a second time"
        assert json.loads(again.stdout)["trials"].keys() <= {"complete", "pruned"}
        for name in (*(f"leaderboard.{kind}" for kind in ("parquet", "csv", "md", "html")), "report.html"):
            assert (study / name).is_file()
        assert not list(study.rglob("*.tmp"))


class TestAStopThatIsAskedFor:
    @pytest.mark.parametrize(
        "number",
        [
            pytest.param(signal.SIGINT, id="ctrl-c"),
            pytest.param(signal.SIGTERM, id="sigterm", marks=pytest.mark.slow),
        ],
    )
    def test_saves_running_trials_and_writes_the_results_so_far(
        self, setting: Setting, number: signal.Signals
    ) -> None:
        study = setting.folder / "studies" / "small_unet"
        words = setting.new("small_unet", "--trials", "2", "--set", "epochs=400", "--concurrency", "1")
        with setting.started(*words) as process:
            wait_for(lambda: len(epochs_logged(study, 0)) >= 2, process)
            # a terminal sends Ctrl-C to the whole group, a supervisor sends SIGTERM to the driver alone
            if number == signal.SIGINT:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE_SECONDS)

        assert process.returncode == 1, err
        assert "go on with" in out
        assert dict(trials(study)) == {0: "RUNNING"}
        assert (study / "leaderboard.md").is_file()
        assert (study / "report.html").is_file()
        assert not (study / "stop").exists()
        done = epochs_logged(study, 0)
        (state,) = (study / "runs").glob("*/state.safetensors")
        assert state.stat().st_size > 0

        with setting.started("--resume") as process:
            wait_for(lambda: len(epochs_logged(study, 0)) > len(done), process)

        assert epochs_logged(study, 0)[len(done)] in (done[-1] + 1, done[-1] + 2), (
            "nothing done is done again"
        )


class TestAFolderOfAnyName:
    """Its name means something to URLs, patterns and shells; the study's space is the user's own file."""

    def test_the_printed_command_searches_again_from_any_folder(self, tmp_path: Path, images: Path) -> None:
        odd = Setting(tmp_path / "q" / "wall?1 %20#[a]*'é", images)
        odd.folder.mkdir(parents=True)
        data = images.rename(images.with_name("cracks ?#'é"))
        space = odd.folder / "mine.yaml"
        space.write_text(
            "recipe: small_unet\n"
            "objective: {metric: val/f1, mode: max}\n"
            "space:\n"
            "  phases.train.optimizer.lr: {float: [1.0e-3, 1.0e-2], log: true}\n"
            "profiles:\n"
            "  tiny: {model.depth: 2, epochs: 1}\n",
            encoding="utf-8",
        )
        words = ("--data", f"synthetic:{data}", *SMALL, "--trials", "1", "--profile", "tiny")
        try:
            first = odd.run(str(space), *words, "--json")
            assert first.returncode == 0, first.stderr
            space.unlink()
            report = (odd.folder / "studies" / "mine" / "report.html").read_text(encoding="utf-8")
            printed = html.unescape(re.findall(r"Run it again</h3><pre>(.*?)</pre>", report, re.DOTALL)[0])
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            place = {"PATH": f"{Path(FISSURA).parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(elsewhere)}

            again = subprocess.run(
                ["bash", "-c", printed], cwd=elsewhere, env={**os.environ, **place}, capture_output=True,
                text=True, timeout=PATIENCE_SECONDS, check=False,
            )  # fmt: skip
        finally:
            data.rename(images)

        assert again.returncode == 0, again.stderr
        studies = odd.folder / "studies"
        assert sorted(path.name for path in studies.iterdir()) == ["mine", "mine-again"]
        assert [trials(study) for study in sorted(studies.iterdir())] == [[(0, "COMPLETE")]] * 2
        assert runs_begun(studies / "mine") == runs_begun(studies / "mine-again"), (
            "the same trial of the same images"
        )
        assert sorted(path.name for path in (tmp_path / "q").iterdir()) == [odd.folder.name]
        assert sorted(path.name for path in odd.folder.iterdir()) == ["cache", "studies"]


class TestTrialsThatFail:
    def test_are_named_with_their_reason_and_never_end_the_search(self, setting: Setting) -> None:
        network = UNet(width=4, depth=2).build()
        poisoned = {name: torch.full_like(value, torch.nan) if value.is_floating_point() else value
                    for name, value in network.state_dict().items()}  # fmt: skip
        save_file(poisoned, setting.folder / "nan.safetensors")
        space = setting.folder / "space.yaml"
        space.write_text(
            "recipe: small_unet\n"
            "objective: {metric: val/f1, mode: max}\n"
            "sampler: {kind: random, seed: 1}\n"
            "space:\n"
            f"  model.weights: {{choice: [none, {setting.folder / 'nan.safetensors'}]}}\n"
            "  data.batch_size: {choice: [4, 8]}\n"
            "profiles:\n"
            "  tiny: {model.depth: 2, epochs: 1}\n",
            encoding="utf-8",
        )

        run = setting.run(*setting.new(str(space), "--trials", "9", "--profile", "tiny", "--json"))

        assert run.returncode == 0, run.stderr
        result = json.loads(run.stdout)
        assert result["trials"] == {"complete": 2, "fail": 2}, "four configurations, none of them run twice"
        assert all("is nan" in reason for reason in result["failures"].values())
        study = setting.folder / "studies" / "space"
        assert len(runs_begun(study)) == len(set(runs_begun(study))) == 4
        told = subprocess.run(
            [FISSURA, "report", study, "--json"], capture_output=True, text=True, check=True
        )
        assert json.loads(told.stdout) == {"report": str(study / "report.html")}
        report = (study / "report.html").read_text(encoding="utf-8")
        assert "the training loss of step 1 of epoch 1 is nan" in report


class TestAWorkerThatIsKilled:
    def test_is_replaced_and_its_trial_goes_on(self, setting: Setting) -> None:
        study = setting.folder / "studies" / "small_unet"
        words = setting.new("small_unet", "--trials", "1", "--set", "epochs=60")
        with setting.started(*words, "--json") as process:
            wait_for(lambda: len(epochs_logged(study, 0)) >= 3, process)
            kill_workers(process)
            out, err = process.communicate(timeout=PATIENCE_SECONDS)

        assert process.returncode == 0, err
        assert json.loads(out)["trials"] == {"complete": 1}
        epochs = epochs_logged(study, 0)
        assert epochs[-1] == 60
        assert len(epochs) <= 61, "at most one epoch is trained again"

    @pytest.mark.slow
    def test_again_and_again_is_a_failed_trial_and_the_search_goes_on(self, setting: Setting) -> None:
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
