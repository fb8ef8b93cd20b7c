"""A search whose trials are trained by two workers each, on the two nodes of a cluster on this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fissura.data.synthetic import SyntheticSpec, write

# a group of workers takes seconds to start, and minutes on a busy machine
PATIENCE_SECONDS = 1200
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE_SECONDS)]

FISSURA = str(Path(sys.executable).with_name("fissura"))
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
FREE = """
import json, ray
ray.init(logging_level="ERROR")
held = [one["state"] for one in ray.util.placement_group_table().values() if one["state"] != "REMOVED"]
print(json.dumps([ray.available_resources().get("CPU", 0), held]))
"""
SPACE = """
recipe: small_unet
objective: {{metric: val/loss, mode: min}}
scheduler: {}
space:
  phases.train.optimizer.lr: {{choice: [3.0e-3, 1.0e-9, 2.0e-9]}}
"""
# a mean over pixels, and no statistics of a worker's own share: then the mean gradient is the batch's
EXACT = (
    "--set", "phases.train.loss.kind=bce", "--set", "model.normalisation=none", "--set", "model.width=4",
    "--set", "data.crop.size=32", "--set", "data.batch_size=4",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A running cluster, and a folder with images to work in."""

    folder: Path
    images: Path
    settings: dict[str, str]
    cluster: "subprocess.Popen[str]"

    @property
    def study(self) -> Path:
        """The study that a search of `small_unet` makes."""
        return self.folder / "studies" / "small_unet"

    def command(self, *words: str) -> list[str]:
        """A `fissura search`."""
        folders = ("--storage", str(self.folder / "studies"), "--cache", str(self.folder / "cache"))
        return [FISSURA, "search", *words, *folders]

    def new(self, *words: str, scheduler: str = "{kind: none}") -> tuple[str, ...]:
        """The words of a new search with two workers a trial, for three learning rates."""
        space = self.folder / "small_unet.yaml"
        space.write_text(SPACE.format(scheduler), encoding="utf-8")
        data = ("--data", f"synthetic:{self.images}")
        return (str(space), *words, *data, "--workers-per-trial", "2", *EXACT)

    def run(self, *words: str) -> dict[str, Any]:
        """Runs a search to its end; gives its result."""
        done = subprocess.run(
            self.command(*words, "--json"), capture_output=True, text=True, timeout=PATIENCE_SECONDS,
            check=False, env=self.settings,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        plain: dict[str, Any] = json.loads(done.stdout)
        return plain

    @contextmanager
    def started(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """A running search, in a session of its own."""
        with subprocess.Popen(
            self.command(*words, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=self.settings,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def everything_is_free(self) -> bool:
        """Whether both CPUs are free again, and no group of workers holds any."""
        asked = subprocess.run(
            [sys.executable, "-c", FREE], capture_output=True, text=True, timeout=120, check=True,
            env=self.settings,
        )  # fmt: skip
        cpus, held = json.loads(asked.stdout.splitlines()[-1])
        return cpus == 2 and not held

    def processes(self, name: str) -> list[int]:
        """The cluster's processes of this name."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self.cluster.pid in ancestors(int(entry.name)):
                with contextlib.suppress(OSError):
                    if name in (entry / "cmdline").read_text():
                        found.append(int(entry.name))
        return found


def ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1:
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


def epochs_of(study: Path, trial: int) -> list[int]:
    """The epochs of a trial, in the order in which they were told."""
    log = study / "search.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    mark = f" trial {trial} epoch "
    return [
        int(line.split(mark)[1].split(":")[0]) for line in lines if mark in line and "interrupted" not in line
    ]


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert process is None or process.poll() is None, f"the search ended early: {process.communicate()}"
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    settings = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=settings,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            yield process, settings | {"RAY_ADDRESS": address}
        finally:
            process.communicate("", timeout=120)


@pytest.fixture
def place(tmp_path: Path, cluster: tuple["subprocess.Popen[str]", dict[str, str]]) -> Place:
    spec = SyntheticSpec(train=8, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0))
    write(spec, tmp_path / "images")
    process, settings = cluster
    return Place(tmp_path, tmp_path / "images", settings, process)


def test_a_trial_that_is_stopped_early_frees_its_workers_for_the_next(place: Place) -> None:
    """One trial at a time fits: the third could not begin while the second held its workers."""
    asha = "{kind: asha, grace: 1, reduction: 2}"
    result = place.run(*place.new("--trials", "3", "--set", "epochs=6", scheduler=asha))
    assert sum(result["trials"].values()) == 3
    assert result["trials"]["pruned"] >= 1
    assert len(epochs_of(place.study, 0)) == 6
    wait_for(place.everything_is_free)
    assert not list(place.study.glob("runs/*/workers")), "what lay in a run for its workers is gone with them"
    assert not list(place.study.glob("runs/*/ray-train"))
    assert not list(place.study.glob("runs/*/stop"))


def test_two_workers_reach_what_one_reaches(place: Place) -> None:
    words = place.new("--trials", "1", "--set", "epochs=3")
    place.run(*words)
    (shared,) = place.study.glob("runs/*/")
    alone = Place(place.folder / "alone", place.images, place.settings, place.cluster)
    alone.run(*words, "--workers-per-trial", "1")
    run = alone.study / "runs" / shared.name
    assert json.loads((shared / "manifest.json").read_text())["cpus"] == 2
    histories = [json.loads((one / "metrics.json").read_text("utf-8"))["history"] for one in (shared, run)]
    assert len(histories[0]) == 3
    for two, one in zip(*histories, strict=True):
        assert two["train/loss"] == pytest.approx(one["train/loss"], rel=1e-3)
        assert two["val/loss"] == pytest.approx(one["val/loss"], rel=1e-3)
    weights = [load_file(one / "weights.safetensors") for one in (shared, run)]
    assert all(float((weights[0][name] - weights[1][name]).abs().max()) < 2e-3 for name in weights[1])


def test_a_killed_worker_costs_an_epoch_and_a_stop_is_resumed(place: Place) -> None:
    words = place.new("--trials", "1", "--set", "epochs=60")
    with place.started(*words) as process:
        wait_for(lambda: len(epochs_of(place.study, 0)) >= 3, process)
        os.kill(place.processes("RayTrainWorker")[0], signal.SIGKILL)
        known = epochs_of(place.study, 0)
        wait_for(lambda: len(epochs_of(place.study, 0)) > len(known) + 3, process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, err
    assert json.loads(out)["interrupted"]
    done = epochs_of(place.study, 0)
    assert done == sorted(done)
    assert len(done) - len(set(done)) <= 1, "at most one epoch is told again"
    wait_for(place.everything_is_free)

    result = place.run("--resume", "--workers-per-trial", "2")

    assert result["trials"] == {"complete": 1}
    epochs = epochs_of(place.study, 0)
    assert epochs[len(done)] >= done[-1], "nothing done is done again"
    assert epochs[-1] == 60
    wait_for(place.everything_is_free)


def test_a_trial_s_own_actor_that_is_killed_leaves_nothing_held(place: Place) -> None:
    """Its workers are ended, what they held is given back, and the trial goes on in another actor."""
    with place.started(*place.new("--trials", "1", "--set", "epochs=30")) as process:
        wait_for(lambda: len(epochs_of(place.study, 0)) >= 3, process)
        os.kill(place.processes("ray::ResourceTrainable")[0], signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["trials"] == {"complete": 1}
    epochs = epochs_of(place.study, 0)
    assert epochs[-1] == 30
    assert len(epochs) - len(set(epochs)) <= 1, "at most one epoch is told again"
    wait_for(place.everything_is_free)
