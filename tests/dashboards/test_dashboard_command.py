"""`fissura dashboard` on a study that was searched: what a browser shows, and what is left when it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fissura.data.synthetic import SyntheticSpec, write
from fissura.records.trial_attributes import RUN
from fissura.studies.study import Study

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FISSURA = str(Path(sys.executable).with_name("fissura"))
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three trials of four epochs."""
    folder = tmp_path_factory.mktemp("studies")
    write(
        SyntheticSpec(train=6, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)), folder / "images"
    )
    settings = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [
            FISSURA, "search", "small_unet", "--name", "bridge", "--data", f"synthetic:{folder / 'images'}",
            "--storage", str(folder), "--cache", str(folder / "cache"), "--trials", "3", "--set", "epochs=4",
            "--set", "model.width=4", "--set", "data.crop.size=32",
        ],
        capture_output=True, text=True, timeout=400, check=False, env=settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Study(folder / "bridge")


@dataclass(frozen=True)
class Shown:
    """A `fissura dashboard` that answers."""

    process: "subprocess.Popen[str]"
    urls: dict[str, str]
    children: tuple[int, ...]

    def end(self, number: signal.Signals) -> int:
        """Ends it as a person or a supervisor does; gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def children_of(pid: int) -> tuple[int, ...]:
    """The processes below it, living or not yet waited for."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:
                continue
    found, todo = [], [pid]
    while todo:
        below = [child for child, parent in parents.items() if parent in todo]
        found += below
        todo = below
    return tuple(found)


def living(pids: tuple[int, ...]) -> list[int]:
    """Those that have not ended; whoever adopted the others may not have noticed yet."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if (Path(f"/proc/{pid}") / "stat").read_text().rpartition(") ")[2][0] != "Z":
                found.append(pid)
    return found


@contextmanager
def shown(study: Study, *words: str) -> Iterator[Shown]:
    process = subprocess.Popen(
        [FISSURA, "dashboard", str(study.path), "--json", *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, f"it ended: {process.wait()}"
        text += line
    try:
        yield Shown(process, json.loads(text), children_of(process.pid))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        process.stdout.close()


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` gives once it is true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def text_of(browser: "Chrome") -> str:
    return str(browser.execute_script("return document.body.innerText"))


@pytest.fixture(scope="module")
def opened(study: Study) -> Iterator[Shown]:
    with shown(study) as running:
        yield running


class TestABrowser:
    def test_shows_each_trial_with_its_state_and_its_run(
        self, study: Study, opened: Shown, browser: "Chrome"
    ) -> None:
        trials = study.load().trials
        assert len(trials) == 3
        browser.get(f"{opened.urls['optuna']}dashboard")
        until(lambda: "bridge" in text_of(browser))
        for trial in trials:
            browser.get(f"{opened.urls['optuna']}dashboard/studies/1/trials?numbers={trial.number}")
            until(lambda trial=trial: f"Trial {trial.number} (trial_id" in text_of(browser))
            lines = text_of(browser).splitlines()
            assert f"run {trial.user_attrs[RUN]}" in lines
            heading = next(line for line in lines if line.startswith(f"Trial {trial.number} (trial"))
            assert lines[lines.index(heading) + 1] == trial.state.name.capitalize()
            for name, value in trial.params.items():
                assert f"{name} {value}" in lines

    def test_names_the_objective_at_the_axis_of_the_history(
        self, opened: Shown, browser: "Chrome", tmp_path: Path
    ) -> None:
        browser.get(f"{opened.urls['optuna']}dashboard/studies/1")
        until(lambda: "Best Trial" in text_of(browser) and "val/f1" in text_of(browser))
        assert "Objective 0" not in text_of(browser)
        browser.save_screenshot(str(tmp_path / "trials.png"))

    def test_shows_the_curve_of_each_run_up_to_the_value_of_its_last_epoch(
        self, study: Study, opened: Shown, browser: "Chrome", tmp_path: Path
    ) -> None:
        last = {}
        for file in study.runs.glob("*/metrics.json"):  # of the trials that were not pruned
            record = json.loads(file.read_text())["history"][-1]
            last[f"{file.parent.name}/tensorboard"] = (record["epoch"], record["val/f1"])
        assert last
        browser.get(f"{opened.urls['tensorboard']}?forceSVG=true&tagFilter=^val/f1$&smoothing=0#timeseries")

        def table() -> dict[str, list[str]]:
            rows = browser.execute_script(
                "return [...document.querySelectorAll('scalar-card-data-table tb-data-table-content-row')]"
                ".map(row => row.innerText.split(/\\s+/).filter(word => word))"
            )
            return {row[0]: row[1:] for row in rows if row}

        until(lambda: len(table()) == 3)
        shown = table()
        assert shown.keys() == {f"{run.name}/tensorboard" for run in study.runs.iterdir() if run.is_dir()}
        for name, (epoch, value) in last.items():
            assert float(shown[name][0]) == pytest.approx(value, abs=1e-4)
            assert int(shown[name][1]) == epoch
        # one line a run, with a point an epoch
        lines = "return [...document.querySelectorAll('scalar-card line-chart svg.ng-star-inserted > path')]"
        points = until(
            lambda: browser.execute_script(f"{lines}.map(path => path.getAttribute('d').split('L').length)")
        )
        epochs = [int(words[1]) for words in table().values()]
        assert sorted(points) == sorted(count for count in epochs if count > 1)  # one point is no line
        browser.save_screenshot(str(tmp_path / "curves.png"))


class TestItsEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
    def test_leaves_no_process_and_frees_the_ports_that_were_asked_for(
        self, study: Study, number: signal.Signals
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            ports = [probe.getsockname()[1] for probe in (one, two)]
        words = ("--tensorboard-port", str(ports[0]), "--optuna-port", str(ports[1]))
        with shown(study, *words) as running:
            assert running.urls == {
                "tensorboard": f"http://127.0.0.1:{ports[0]}/",
                "optuna": f"http://127.0.0.1:{ports[1]}/",
            }
            assert len(running.children) >= 2
            assert running.end(number) == 0
            until(lambda: not living(running.children))
        for port in ports:
            socket.create_server(("127.0.0.1", port)).close()

    def test_of_one_of_them_ends_the_other_and_is_a_failure(self, study: Study) -> None:
        with shown(study) as running:
            os.kill(children_of(running.process.pid)[0], signal.SIGKILL)
            assert running.process.wait(60) == 1
            until(lambda: not living(running.children))
