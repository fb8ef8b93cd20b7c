"""A service on a cluster: `serve deploy` of what `--write-config` wrote, replicas that share a GPU, and more
of them as the load asks."""

import asyncio
import io
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from fissura.data.photograph import decode
from fissura.distributed.serving.proxy import is_unbounded
from fissura.segmentation.predict import Predictor
from fissura.serving.connection import HEAD_BYTES
from serve_process import FISSURA, PHOTO, TOKEN, Seen, asked, asking, descendants, free_port, photograph
from serving_door import answer, client, head, sent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RAY, SERVE = (str(Path(sys.executable).with_name(name)) for name in ("ray", "serve"))
MODEL = "ServeReplica:fissura-model-default-v1"
PATIENCE_SECONDS = 240


class Cluster(NamedTuple):
    """One node that counts with six CPUs and a GPU; `torch` sees none, so the replicas compute on the CPU."""

    process: "subprocess.Popen[str]"
    settings: dict[str, str]
    address: str
    dashboard: str


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FISSURA"))}
    settings |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    port, dashboard = free_port(), free_port()
    words = ["start", "--head", "--block", f"--port={port}", "--num-cpus=6", "--num-gpus=1"]
    words += ["--include-dashboard=true", f"--dashboard-port={dashboard}", "--disable-usage-stats"]
    with subprocess.Popen(
        [RAY, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert any("--block" in line for line in process.stdout), "the node starts"
            yield Cluster(process, settings, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
        finally:
            below = descendants(process.pid)
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=120)
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def replicas(cluster: Cluster) -> list[int]:
    return [pid for pid, line in descendants(cluster.process.pid).items() if MODEL in line]


def wait_until(true: Callable[[], bool], what: str) -> float:
    """The seconds until it is true."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < PATIENCE_SECONDS, what
        time.sleep(0.5)
    return time.monotonic() - begin


def within_the_limits(port: int) -> str:
    """What Ray Serve's proxy says to a head that is too large, and to half of one: it keeps the limits that
    the controller was started with, before any process of the service sees the request."""
    health = ("GET", "/-/healthz")
    assert sent(port, head(*health, f"Padding: {'a' * (HEAD_BYTES // 2)}")).status == 200
    large = sent(port, head(*health, f"Padding: {'a' * 2 * HEAD_BYTES}"))
    assert (large.status, large.kind) == (431, "head-too-large")
    assert not is_unbounded("127.0.0.1", port)
    begin = time.monotonic()
    with client(port) as connection:
        connection.sendall(head(*health)[:-2])
        half = answer(connection)
    seconds = time.monotonic() - begin
    assert (half.status, half.kind) == (408, "stood-still")
    return f"{large.status} for a head of 64 kB, {half.status} for half a head after {seconds:.1f} s"


def test_is_deployed_shares_a_gpu_and_grows_with_the_load(
    cluster: Cluster,
    write_segmenter: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, port = write_segmenter(tmp_path / "aaaaaaaaaaaaaaaa", seed=0), free_port()
    words = [str(run), "--replicas", "1:2", "--gpus-per-replica", "0.5", "--port", str(port)]
    written = subprocess.run(
        [FISSURA, "serve", *words, "--write-config", "serve.yaml"],
        env=cluster.settings | {"FISSURA_TOKEN": TOKEN},
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "next: serve deploy serve.yaml" in written.stderr + written.stdout
    subprocess.run(
        [SERVE, "deploy", "serve.yaml", "--address", cluster.dashboard],
        env=cluster.settings, timeout=PATIENCE_SECONDS,
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    started = wait_until(lambda: asked(url, "GET", "/readyz").status == 200, "the service is ready")

    bounded = within_the_limits(port)

    found = asked(url, "POST", "/v1/segment?answer=probability", PHOTO)
    assert found.status == 200, found.body
    expected = Predictor.open(run, device=torch.device("cpu"))(decode(PHOTO).pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found.body))), expected)
    assert asked(url, "POST", "/v1/segment", PHOTO, headers={}).status == 401
    assert len(replicas(cluster)) == 1

    seen, image = Seen(), photograph(400, 600)

    async def loaded() -> float:
        begin = time.monotonic()
        async with asking(url) as ask:

            async def go_on() -> None:
                while len(replicas(cluster)) < 2:
                    assert time.monotonic() - begin < PATIENCE_SECONDS, "a second replica comes"
                    await seen.ask(ask, begin, image)

            await asyncio.gather(*(go_on() for _ in range(16)))
            grown = time.monotonic() - begin
            # both share the one GPU by halves
            await asyncio.gather(*(seen.ask(ask, begin, image) for _ in range(32)))
        return grown

    grown = asyncio.run(loaded())
    assert not seen.wrong
    assert set(seen.statuses()) <= {200, 429}
    status = subprocess.run(
        [RAY, "status", "--address", cluster.address],
        env=cluster.settings, check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    in_use = re.search(r"([\d.]+)/1\.0 GPU", status)
    assert in_use is not None, status
    assert float(in_use[1]) == 1.0
    with capsys.disabled():
        print(  # noqa: T201
            f"\nserve deploy: ready after {started:.0f} s; its proxy: {bounded};"
            f" a second replica {grown:.0f} s after the load began; {seen.statuses()};"
            f" GPU in use {in_use[1]} of 1"
        )
