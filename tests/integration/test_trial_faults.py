"""What befalls one trial of a search, and what the search makes of it: real processes, on tiny images."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from fissura.data.synthetic import SyntheticSpec, write
from fissura.training.checkpoint import read_progress

FISSURA = str(Path(sys.executable).with_name("fissura"))
SMALL = (
    "--set", "model.width=4", "--set", "data.crop.size=32", "--set", "data.crop.per_image=1",
    "--set", "model.depth=2",
)  # fmt: skip
PATIENCE_SECONDS = 400
Measured = Callable[..., None]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Search:
    """A running `fissura search` and its study."""

    process: "subprocess.Popen[str]"
    study: Path
    words: Path

    def log(self) -> str:
        """The study's log so far."""
        path = self.study / "search.log"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def epochs(self, trial: int) -> list[int]:
        """The epochs of a trial that the log tells of, in its order."""
        return [int(epoch) for epoch in re.findall(rf" trial {trial} epoch (\d+): .*= \d", self.log())]

    def states(self) -> dict[int, str]:
        """The state of each trial in the database."""
        with sqlite3.connect(f"file:{self.study / 'study.db'}?mode=ro", uri=True) as database:
            try:
                return dict(database.execute("select number, state from trials"))
            except sqlite3.OperationalError:  # it is being made
                return {}

    def said(self) -> str:
        """What the search said so far."""
        return self.words.read_text(encoding="utf-8")

    def until(self, done: Callable[[], bool], what: str) -> float:
        """Waits for a condition; gives the seconds that it took."""
        begin = time.monotonic()
        while not done():
            assert self.process.poll() is None, f"the search ended early: {self.process.communicate()}"
            assert time.monotonic() - begin < PATIENCE_SECONDS, f"never: {what}\n{self.log()}"
            time.sleep(0.1)
        return time.monotonic() - begin

    def result(self) -> dict[str, object]:
        """The search's JSON, once it has ended well."""
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, err
        found: dict[str, object] = json.loads(out)
        return found

    def workers(self) -> list[int]:
        """The processes in which trials train."""
        return [
            pid
            for pid in descendants(self.process.pid)
            if "Trainable" in command_of(pid) or "TrialActor" in command_of(pid)
        ]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "cracks"
    write(SyntheticSpec(train=6, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)), folder)
    return folder


@contextmanager
def searching(
    folder: Path,
    images: Path,
    *words: str,
    storage: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[Search]:
    """A running search of `small_unet` with JSON at its end; what is left of it afterwards is killed."""
    studies = storage or folder / "studies"
    command = [
        FISSURA, "search", "small_unet", "--data", f"synthetic:{images}", *SMALL, *words, "--json",
        "--storage", str(studies), "--cache", str(folder / "cache"),
    ]  # fmt: skip
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True,
            # Ray's own wait for its raylet is 30 s, which a busy machine takes
            env=os.environ | {"RAY_raylet_start_wait_time_s": "300"} | (environment or {}),
        ) as process,
    ):  # fmt: skip
        try:
            yield Search(process, studies / "small_unet", folder / "said")
        finally:
            left = descendants(process.pid)
            process.kill()
            if sys.exc_info()[0] is not None:
                for pid in left:
                    if command_of(pid):
                        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
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


def command_of(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text()
    except OSError:
        return ""


class TestATrialThatHangs:
    def test_is_killed_and_fails_with_the_reason_and_the_search_goes_on(
        self, tmp_path: Path, images: Path, measured: Measured
    ) -> None:
        words = ("--trials", "2", "--set", "epochs=40", "--concurrency", "1", "--trial-timeout", "60")
        with searching(tmp_path, images, *words) as search:
            search.until(lambda: len(search.epochs(0)) >= 3, "three epochs")
            (worker,) = search.workers()
            os.kill(worker, signal.SIGSTOP)
            noticed = search.until(lambda: search.states().get(0) == "FAIL", "the trial fails")
            # the one slot of this search is free again when the next trial trains
            back = search.until(lambda: len(search.epochs(1)) >= 1, "the next trial trains")
            assert not command_of(worker), "the stopped process is gone"
            result = search.result()

        assert result["trials"] == {"complete": 1, "fail": 1}
        assert "hung: no epoch was finished within 60 s" in result["failures"]["0"]
        assert "--trial-timeout" in result["failures"]["0"]
        measured("hung trial", seconds_to_notice=noticed, seconds_until_the_next_trains=back)


class Metadata(BaseHTTPRequestHandler):
    """EC2's instance metadata, version 2, of a machine that keeps its place until `gone` is set."""

    gone = ""

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200, "the-session-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "the-session-token":
            self._answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and Metadata.gone:
            self._answer(200, json.dumps({"action": "terminate", "time": Metadata.gone}))
        else:
            self._answer(404, "")

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Metadata.gone = ""
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that takes no trials, and three nodes of one CPU each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def node_of_the_trial() -> str:
    """Ray's id of the node on which a trial trains now; empty where none does."""
    actors = ray._private.state.actors().values()
    return next(
        (
            a["Address"]["NodeID"]
            for a in actors
            if "Trainable" in a["ActorClassName"] and a["State"] == "ALIVE"
        ),
        "",
    )


# Ray's cluster of one machine leaves a socket to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestASpotNotice:
    def test_moves_the_trial_to_another_node_without_a_lost_step_or_a_failure(
        self, tmp_path: Path, images: Path, cluster: Cluster, endpoint: str, measured: Measured
    ) -> None:
        words = (
            "--trials",
            "1",
            "--set",
            "epochs=400",
            "--address",
            cluster.address,
            "--cpus-per-trial",
            "1",
        )
        nodes, seconds = [], []
        with searching(tmp_path, images, *words) as search:
            # one failure more than a search allows, if a notice were one
            for _ in range(2):
                so_far = len(search.epochs(0))
                search.until(lambda so_far=so_far: len(search.epochs(0)) >= so_far + 3, "three more epochs")
                nodes.append(node_of_the_trial())
                watch = [
                    FISSURA,
                    "spot-watch",
                    "--endpoint",
                    endpoint,
                    "--every",
                    "0.2",
                    "--address",
                    cluster.address,
                ]
                Metadata.gone = (datetime.now(UTC) + timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")
                with subprocess.Popen([*watch, "--node", nodes[-1]]) as watcher:
                    assert watcher.wait(PATIENCE_SECONDS) == 0
                begin = time.monotonic()
                search.until(
                    lambda: search.log().count(" begins anew: ") > len(seconds), "the trial leaves its node"
                )
                so_far = len(search.epochs(0))
                search.until(
                    lambda so_far=so_far: len(search.epochs(0)) > so_far, "an epoch on the next node"
                )
                seconds.append(time.monotonic() - begin)
            nodes.append(node_of_the_trial())
            search.process.send_signal(signal.SIGTERM)
            out, _ = search.process.communicate(timeout=PATIENCE_SECONDS)

        assert len(set(nodes)) == 3, "each time on a node that stays"
        assert search.states() == {0: "RUNNING"}, "one trial, under its number, and no failed one"
        assert json.loads(out)["failures"] == {}
        assert search.log().count("its node is to be taken away") == 2
        epochs = search.epochs(0)
        assert epochs == list(range(1, len(epochs) + 1)), "no epoch is trained twice"
        measured("spot notice", epochs_lost=0, failures=0, seconds_to_an_epoch_elsewhere=max(seconds))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB that can be taken away: `disk`, seen at `place`."""
    disk, place = tmp_path / "disk", tmp_path / "place"
    disk.mkdir()
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "fissura-test", disk], check=True)
    subprocess.run(["mount", "--bind", disk, place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=False)
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.root
class TestStorage:
    def test_that_is_full_is_waited_for_until_there_is_space(
        self, tmp_path: Path, images: Path, small_disk: Path, measured: Measured
    ) -> None:
        words = ("--trials", "2", "--set", "epochs=60", "--concurrency", "1")
        with searching(tmp_path, images, *words, storage=small_disk) as search:
            search.until(lambda: len(search.epochs(0)) >= 3, "three epochs")
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0" * 65536):
                    pass
            search.until(lambda: "No space left on device" in search.said(), "the search says that it waits")
            (state,) = search.study.glob("runs/*/state.safetensors")
            before = read_progress(state)[0].epoch
            filler.unlink()
            back = search.until(lambda: max(search.epochs(0)) > before + 1, "the trial goes on")
            result = search.result()

        assert sum(result["trials"].values()) == 2
        assert result["trials"].keys() <= {"complete", "pruned"}, "none failed"
        assert search.epochs(0) == list(range(1, 61)), "no epoch is lost or trained twice"
        assert not list(small_disk.rglob("*.tmp"))
        measured("disk full", epochs_lost=0, seconds_to_recovery=back)

    def test_that_is_gone_for_a_while_is_waited_for(
        self, tmp_path: Path, images: Path, small_disk: Path, measured: Measured
    ) -> None:
        words = ("--trials", "2", "--set", "epochs=60", "--concurrency", "1")
        with searching(tmp_path, images, *words, storage=small_disk) as search:
            search.until(lambda: len(search.epochs(0)) >= 3, "three epochs")
            subprocess.run(["umount", "-l", small_disk], check=True)
            search.until(lambda: "tried again for" in search.said(), "the search says that it waits")
            time.sleep(20)  # the fault itself: so long the storage is gone
            left_below = list(small_disk.iterdir())
            subprocess.run(["mount", "--bind", tmp_path / "disk", small_disk], check=True)
            so_far = max(search.epochs(0))
            back = search.until(lambda: max(search.epochs(0)) > so_far + 1, "the trial goes on")
            result = search.result()

        assert left_below == [], "nothing is written below the mount point"
        assert sum(result["trials"].values()) == 2
        assert result["trials"].keys() <= {"complete", "pruned"}, "none failed"
        assert search.epochs(0) == list(range(1, 61)), "no epoch is lost or trained twice"
        measured("storage gone for 20 s", epochs_lost=0, seconds_to_recovery=back)


class TestANodeThatIsLowOnMemory:
    def test_has_a_trial_killed_twice_that_fails_with_the_reason_and_the_remedy(
        self, tmp_path: Path, images: Path
    ) -> None:
        # Ray's own monitor sees a node that is full from the start
        low = {"RAY_memory_usage_threshold": "0.02", "RAY_memory_monitor_refresh_ms": "500"}
        with searching(tmp_path, images, "--trials", "1", "--set", "epochs=400", environment=low) as search:
            search.until(lambda: search.study.joinpath("study.db").is_file(), "the study begins")
            search.until(lambda: search.states().get(0) == "FAIL", "the trial fails")
            out, err = search.process.communicate(timeout=PATIENCE_SECONDS)

        reason = json.loads(out)["failures"]["0"]
        assert "its node was low on memory (" in reason, err
        assert "GB limit), so Ray killed it; lower data.batch_size" in reason
        assert search.log().count(" begins anew: its node was low on memory") == 1
