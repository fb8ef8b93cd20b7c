"""Processes that are stopped and go on (SIGSTOP, SIGCONT), and that are asked to end under load (SIGTERM)."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from fissura.data.synthetic import SyntheticSpec, write
from integration.test_trial_faults import descendants, searching
from serve_process import PHOTO, Running, asked, asking, photograph, serving

pytestmark = [pytest.mark.attacks, pytest.mark.timeout(1800)]

Measured = Callable[..., None]


def stopped(pids: set[int], *, seconds: float) -> None:
    """Stops the processes for a while."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)


def test_a_search_goes_on_after_its_driver_its_trial_and_all_of_it_stood_still(
    tmp_path: Path, measured: Measured
) -> None:
    """As a debugger stops one, and a laptop's lid all; nothing is blamed on the trial, which lost no time."""
    images = tmp_path / "cracks"
    write(SyntheticSpec(train=6, val=2, test=2, height=48, width=48, crack_width=(1.5, 4.0)), images)
    words = ("--trials", "1", "--set", "epochs=4000", "--concurrency", "1", "--trial-timeout", "60")
    seconds = {}
    with searching(tmp_path, images, *words) as search:
        search.until(lambda: len(search.epochs(0)) >= 2, "two epochs")
        [worker] = search.workers()
        for name, pids, wait in (
            ("driver", {search.process.pid}, 70.0),
            ("trial", {worker}, 20.0),
            ("all", descendants(search.process.pid), 70.0),
        ):
            stopped(pids, seconds=wait)
            so_far = len(search.epochs(0))
            seconds[name] = search.until(
                lambda so_far=so_far: len(search.epochs(0)) > so_far, f"more: {name}"
            )
        begin = time.monotonic()
        search.process.send_signal(signal.SIGTERM)
        out, said = search.process.communicate(timeout=400)
        ended = time.monotonic() - begin
    assert search.process.returncode == 1, said
    assert json.loads(out)["failures"] == {}
    assert search.states() == {0: "RUNNING"}
    epochs = search.epochs(0)
    assert epochs == list(range(1, len(epochs) + 1)), "no epoch is lost or trained twice"
    assert list(search.study.glob("runs/*/state.safetensors"))
    measured(
        "stopped and continued",
        **{f"seconds_to_an_epoch_after_{name}": each for name, each in seconds.items()},
    )
    measured("search asked to end", seconds=ended)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The images of a job, and where its results may go."""
    folder = tmp_path / "root"
    (folder / "images").mkdir(parents=True)
    for number in range(40):
        (folder / "images" / f"{number:02}.jpg").write_bytes(photograph(240, 320, seed=number))
    return folder


def stood_still(running: Running) -> set[int]:
    return {running.process.pid} | descendants(running.process.pid)


def test_a_service_answers_after_it_stood_still_and_ends_under_load_with_what_it_accepted(
    segmenter_run: Path, tmp_path: Path, measured: Measured
) -> None:
    with serving(tmp_path, f"walls={segmenter_run}", "--cpus-per-replica", "1") as running:
        assert asked(running.url, "POST", "/v1/segment", PHOTO).status == 200
        stopped(stood_still(running), seconds=20)
        begin = time.monotonic()
        assert asked(running.url, "POST", "/v1/segment", PHOTO).status == 200
        measured("service stopped and continued", seconds_to_an_answer=time.monotonic() - begin)

        async def ended_under_load() -> tuple[list[int], float]:
            async with asking(running.url) as ask:
                image = photograph(480, 640)
                sent = [asyncio.create_task(ask("POST", "/v1/segment", image)) for _ in range(16)]
                await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
                begin = time.monotonic()
                running.process.send_signal(signal.SIGTERM)
                replies = await asyncio.gather(*sent)
                await asyncio.to_thread(running.process.wait, 90)
                return [reply.status for reply in replies], time.monotonic() - begin

        statuses, seconds = asyncio.run(ended_under_load())
        assert statuses == [200] * 16, "what was accepted is answered"
        assert running.process.returncode == 0
        assert running.left() == []
        measured("service asked to end, 16 requests under way", answered=16, seconds=seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"])
def test_a_job_goes_on_when_its_service_starts_again(
    number: signal.Signals, segmenter_run: Path, root: Path, tmp_path: Path, measured: Measured
) -> None:
    words = (f"walls={segmenter_run}", "--cpus-per-replica", "1", "--root", str(root))
    body = json.dumps({"images": str(root / "images"), "out": str(root / "found")}).encode()
    with serving(tmp_path, *words) as running:
        reply = asked(running.url, "POST", "/v1/jobs", body, media="application/json")
        assert reply.status in (200, 201, 202), reply.body
        job = reply.document["id"]
        wait_for_job(running.url, job, lambda shown: shown["done"] >= 5)
        running.seen |= descendants(running.process.pid)
        running.process.send_signal(number)
        running.process.wait(90)
        assert running.left() == [], "nothing of it goes on and writes"
    begin = time.monotonic()
    with serving(tmp_path, *words) as running:
        shown = wait_for_job(running.url, job, lambda shown: shown["state"] not in ("waiting", "running"))
    assert (shown["state"], shown["images"], shown["done"], shown["failed"]) == ("done", 40, 40, 0)
    images = pyarrow.parquet.read_table(root / "found" / "results.parquet")["image"].to_pylist()
    assert sorted(images) == [f"{number:02}.jpg" for number in range(40)], "each once"
    measured(
        f"service restarted in a job of 40 images ({number.name})",
        seconds_until_done=time.monotonic() - begin,
    )


def wait_for_job(url: str, job: str, done: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """The job as it is shown as soon as `done` is true of it."""
    end = time.monotonic() + 300
    while not done(shown := asked(url, "GET", f"/v1/jobs/{job}").document):
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    return shown
