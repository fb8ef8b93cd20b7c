"""Faults of a cluster, made by the drill that users run, on nodes simulated on this machine; and what the
drill must leave alone."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fissura.data.synthetic import SyntheticSpec, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROGRAM = (sys.executable, "-c", "from fissura.cli import main; main()")
SETTINGS = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
PATIENCE_SECONDS = 600
SMALL = ("--set", "model.width=4", "--set", "model.depth=2", "--set", "data.crop.size=32")

# it runs apart, since Ray reads its settings when it is imported
CLUSTER = """
import sys
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
def add():
    node = cluster.add_node(num_cpus=1)
    print(node.node_id, node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid, flush=True)
print(cluster.address, flush=True)
for line in sys.stdin:
    add()
"""


@dataclass(frozen=True)
class Node:
    """A simulated node of one CPU."""

    id: str
    raylet: int

    def end(self) -> None:
        """As a power cut would: a raylet's workers would outlive it for some seconds."""
        os.kill(self.raylet, signal.SIGKILL)
        for pid in self.processes("ray::"):
            os.kill(pid, signal.SIGKILL)

    def processes(self, title: str) -> list[int]:
        """The pids of its processes with such a title."""
        mine = f"RAY_RAYLET_PID={self.raylet}".encode()
        return [pid for pid, named, environment in running() if title in named and mine in environment]


class Cluster:
    """A head without CPUs, and the nodes that are added."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.address = self._line()

    def add(self) -> Node:
        """Starts a node."""
        assert self._process.stdin is not None
        self._process.stdin.write("add\n")
        self._process.stdin.flush()
        name, raylet = self._line().split()
        return Node(name, int(raylet))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=SETTINGS,
    ) as process:
        try:
            yield Cluster(process)
        finally:
            process.communicate("", timeout=120)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cracks"
    write(SyntheticSpec(train=12, val=4, test=4, height=96, width=96, crack_width=(1.5, 4.0)), folder)
    return folder


def running() -> list[tuple[int, str, set[bytes]]]:
    """Pid, title and environment of this machine's Ray workers."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().split(b"\0", 1)[0].decode(errors="replace")
                if title.startswith("ray::"):
                    environment = set((folder / "environ").read_bytes().split(b"\0"))
                    found.append((int(folder.name), title, environment))
            except OSError:
                continue
    return found


def drill(*words: str, storage: Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, result and what was said."""
    done = subprocess.run(
        [*PROGRAM, "drill", "--json", "--storage", str(storage), *words],
        capture_output=True, text=True, timeout=1700, check=False, env=SETTINGS,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def check(findings: Sequence[dict[str, Any]], *, works: Sequence[str]) -> None:
    """Each is within what docs/reliability.md promises."""
    print(json.dumps(findings, indent=2))  # noqa: T201  these are the figures of docs/reliability.md
    assert [one["work"] for one in findings] == list(works)
    for one in findings:
        assert one["problems"] == [], one
        assert one["seconds"] < PATIENCE_SECONDS, one
        assert one["resources_seconds"] is not None, one
        if one["work"] != "classifiers":
            assert one["epochs_lost"] <= 1, one
        if one["work"] != "training":
            assert one["trials_lost"] == 0, one
            assert one["trials_repeated"] == 0, one


@contextmanager
def started(*words: str, log: Path, address: str) -> "Iterator[subprocess.Popen[bytes]]":
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*PROGRAM, *words], stdout=file, stderr=file, env=SETTINGS | {"RAY_ADDRESS": address}
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for(until: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until():
        assert process.poll() is None or until(), log.read_text(errors="replace")[-2000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


def lines(folder: Path, pattern: str, words: str) -> list[str]:
    """The lines with `words` of the log that `pattern` finds."""
    return [
        line for log in folder.glob(pattern) for line in log.read_text("utf-8").splitlines() if words in line
    ]


def test_killed_workers_and_drivers_cost_an_epoch_and_no_trial(tmp_path: Path) -> None:
    code, result, said = drill("--faults", "worker,driver", storage=tmp_path / "storage")

    assert code == 0, (said, result)
    works = ("search", "classifiers", "training")
    check(result["findings"], works=works * 2)
    assert list((tmp_path / "storage").iterdir()) == [], "nothing of a drill stays"


def test_a_head_that_is_started_again_finds_its_searches_on_disk(tmp_path: Path) -> None:
    code, result, said = drill("--faults", "head", storage=tmp_path / "storage")

    assert code == 0, (said, result)
    check(result["findings"], works=("search", "classifiers", "training"))


def test_work_of_a_lost_node_goes_on_on_another(cluster: Cluster, tmp_path: Path) -> None:
    doomed = [cluster.add() for _ in range(3)]
    spared = [cluster.add() for _ in range(2)]
    named = [word for node in doomed for word in ("--node", node.id)]

    code, result, said = drill(
        "--faults", "node", *named, "--address", cluster.address, storage=tmp_path / "storage"
    )

    assert code == 0, (said, result)
    check(result["findings"], works=("search", "classifiers", "training"))
    for node in spared:
        os.kill(node.raylet, 0)


def trained_since(folder: Path, begun: int) -> list[str]:
    """The epochs that the only trial tells of after it began for the nth time."""
    told = lines(folder, "*/search.log", " trial 0 ")
    begins = [number for number, line in enumerate(told) if " begins as run " in line]
    since = told[begins[begun - 1] + 1 :] if len(begins) >= begun else []
    return [line for line in since if " epoch " in line]


def test_a_trial_that_loses_its_node_twice_has_not_failed(
    cluster: Cluster, images: Path, tmp_path: Path
) -> None:
    log, node = tmp_path / "log", cluster.add()
    words = (
        "search", "small_unet", "--data", f"synthetic:{images}", *SMALL, "--profile", "none",
        "--set", "epochs=90", "--trials", "1", "--storage", str(tmp_path), "--cache", str(tmp_path / "cache"),
    )  # fmt: skip
    with started(*words, "--json", log=log, address=cluster.address) as search:
        for begun in (1, 2):
            wait_for(lambda n=begun: len(trained_since(tmp_path, n)) >= 3, search, log)
            node.end()
            node = cluster.add()
            wait_for(lambda n=begun: len(trained_since(tmp_path, n + 1)) > 0, search, log)
        wait_for(lambda: search.poll() is not None, search, log)

    epochs = [
        int(line.split(" epoch ")[1].split(":")[0]) for line in lines(tmp_path, "*/search.log", " epoch ")
    ]
    assert search.returncode == 0
    assert epochs[-1] == 90, "no failure ended it"
    assert all(after > before for before, after in itertools.pairwise(epochs)), (
        "nothing finished is done again"
    )
    assert len(lines(tmp_path, "*/search.log", " begins as run ")) == 3


def test_a_training_goes_on_with_fewer_workers_where_a_node_is_lost_for_good(
    cluster: Cluster, images: Path, tmp_path: Path
) -> None:
    log, nodes = tmp_path / "log", [cluster.add(), cluster.add()]
    words = (
        "train", "small_unet", "--data", f"synthetic:{images}", *SMALL, "--set", "epochs=40",
        "--workers", "2", "--storage", str(tmp_path), "--cache", str(tmp_path / "cache"),
    )  # fmt: skip
    with started(*words, log=log, address=cluster.address) as training:
        wait_for(lambda: len(lines(tmp_path, "runs/*/train.log", "by 2 workers")) >= 3, training, log)
        assert [len(node.processes("RayTrainWorker")) for node in nodes] == [1, 1], "a worker on each node"
        nodes[0].end()
        wait_for(lambda: training.poll() is not None, training, log)

    assert training.returncode == 0, log.read_text(errors="replace")[-2000:]
    told = lines(tmp_path, "runs/*/train.log", " epoch ")
    assert [int(line.split(" epoch ")[1].split(":")[0]) for line in told] == list(range(1, 41))
    assert told[-1].endswith("by 1 worker")
    (metrics,) = tmp_path.glob("runs/*/metrics.json")
    history = json.loads(metrics.read_text("utf-8"))["history"]
    assert len(history) == 40


def test_a_drill_ends_nothing_that_it_did_not_start(cluster: Cluster, tmp_path: Path) -> None:
    nodes = [cluster.add(), cluster.add(), cluster.add()]
    bystander = (
        "import os, ray, sys\n"
        "ray.init(log_to_driver=False)\n"
        "@ray.remote(num_cpus=1)\n"
        "class Trainable:\n"
        "    def pid(self): return os.getpid()\n"
        "actor = Trainable.remote()\n"
        "print(ray.get(actor.pid.remote()), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", bystander], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=SETTINGS | {"RAY_ADDRESS": cluster.address},
    ) as other:  # fmt: skip
        assert other.stdout is not None
        pid = int(other.stdout.readline())
        code, result, said = drill(
            "--faults", "worker", "--address", cluster.address, storage=tmp_path / "storage"
        )
        alive = [one for one, title, _ in running() if one == pid and "Trainable" in title]
        other.communicate("", timeout=60)

    assert code == 0, (said, result)
    assert alive == [pid], "an actor of the same title, and of somebody else"
    assert len(result["findings"]) == 3
    for node in nodes:
        os.kill(node.raylet, 0)


BAD_SETTING = """
import os, re, signal, sys
from pathlib import Path
from fissura.distributed.environment import prepare_environment
prepare_environment(None)
from fissura import api
from fissura.distributed.search import classifier_trials as classify
from fissura.distributed.preflight import Hardware

judge = classify._judge

def end(*rest, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(*rest, **named):
    re.match("(a+)+$", "a" * 64 + "b")  # which never lets another thread of Python run

def bad(plain, *rest):
    if any(one["classifier"]["C"] == 3 for one in plain):
        judge.__globals__["judge_svms"] = {"end": end, "hang": hang}[what]  # of the worker's own copy
    return judge(plain, *rest)

classify._judge, what = bad, sys.argv[3]
folder = Path(sys.argv[1])
fixed = {"backbone.weights": "none", "backbone.input_size": 32, "folds": 3, "backbone.kind": "mobilenet_v3"}
result = api.search(
    folder / "space.yaml", data=[f"patches:synthetic:{sys.argv[2]}"], storage=folder, trials=8,
    profile="none", fixed=fixed, hardware=Hardware(concurrent=1), cache=folder / "cache",
    trial_timeout=int(sys.argv[4]),
)
print(result.trials, list(result.failures.values()))
"""


@pytest.mark.parametrize(
    ("what", "timeout_seconds", "reason"),
    [
        ("end", 100, "WorkerCrashedError"),
        ("hang", 5, "hung: it was not judged within 5 s, so its process ended"),
    ],
)
def test_a_setting_that_ends_its_process_or_never_ends_takes_no_other_with_it(
    images: Path, tmp_path: Path, what: str, timeout_seconds: int, reason: str
) -> None:
    (tmp_path / "space.yaml").write_text(
        "recipe: cnn_svm\n"
        "objective: {metric: cv/f1, mode: max}\n"
        "sampler: {kind: random, seed: 0}\n"
        "scheduler: {kind: none}\n"
        "space:\n"
        "  classifier.C: {choice: [1, 2, 3, 4, 5, 6, 7, 10]}\n",
        encoding="utf-8",
    )
    script = tmp_path / "bad_setting.py"
    script.write_text(BAD_SETTING, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, tmp_path, images, what, str(timeout_seconds)],
        capture_output=True, text=True, timeout=900, check=False, env=SETTINGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'complete': 7" in done.stdout, done.stdout
    assert "'fail': 1" in done.stdout
    assert reason in done.stdout
