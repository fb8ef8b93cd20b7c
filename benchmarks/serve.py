"""Photographs a second through the service, through LitServe, and in a bare loop over the same predictor.

All three decode the same JPEG files, predict, and encode the mask as PNG:

- a bare loop in this machine's best form: one process with a thread a CPU, or a process a CPU with one thread
  each, whichever answers more;
- `fissura serve`, a replica a CPU, asked by one client over HTTP with raw bytes;
- LitServe, a worker a CPU, the same predictor, asked by the same client with base64 in JSON, as its documents
  have it.

The client keeps a fixed number of requests under way, and shares the machine. Sides take turns in each
repetition; seconds of one image in flight are measured too, for the cost of a request by itself.

LitServe is no dependency: `pip install litserve`.

Run: python benchmarks/serve.py [repetitions] [--seconds N] [--models small_unet unet]
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from peers.bare import Bare
from PIL import Image

from fissura import api
from fissura.core.files import write_json
from fissura.data.synthetic import SyntheticSpec, draw, write

HEIGHT, WIDTH, IMAGES, UNDER_WAY = 320, 480, 32, 8
TARGET = 0.85
RESULT = Path(__file__).parent / "results" / "serve.json"
PEER = Path(__file__).parent / "peers" / "litserve_server.py"
MODELS = {
    "small_unet": {"model.width": 8, "model.depth": 3},
    "unet": {"model.width": 16, "model.depth": 4},
}


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def make_run(folder: Path, images: Path, model: dict[str, Any]) -> Path:
    """A short training on the synthetic set, so that masks hold cracks to measure, as a user's do."""
    settings = {**model, "epochs": 6, "threshold": {"kind": "given", "value": 0.5}}
    run, _ = api.train(
        "small_unet", data=[f"synthetic:{images}"], storage=folder, cache=folder / "cache", fixed=settings
    )
    return run


def make_images(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    spec, paths = SyntheticSpec(height=HEIGHT, width=WIDTH), []
    for index in range(IMAGES):
        paths.append(folder / f"{index:03d}.jpg")
        Image.fromarray(draw(spec, split="test", index=index).image).save(paths[-1], quality=90)
    return paths


def loop(run: Path, images: Sequence[Path], *, threads: int, seconds: float) -> float:
    """Images a second of one process."""
    bare = Bare(run, threads)
    for path in images[:4]:
        bare(path.read_bytes())
    print("ready", flush=True)
    sys.stdin.readline()
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        bare(images[done % len(images)].read_bytes())
        done += 1
    return done / (time.perf_counter() - begin)


def loops(run: Path, folder: Path, *, processes: int, threads: int, seconds: float) -> float:
    """Images a second of several processes that begin together."""
    words = [sys.executable, __file__, "--role", "loop", "--run", str(run), "--images", str(folder)]
    words += ["--threads", str(threads), "--seconds", str(seconds)]
    running = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for one in running:
        one.stdout.readline()  # type: ignore[union-attr]
    for one in running:
        one.stdin.write("go\n")  # type: ignore[union-attr]
        one.stdin.flush()  # type: ignore[union-attr]
    return sum(float(one.communicate()[0].splitlines()[-1]) for one in running)


async def asked(
    url: str, images: Sequence[bytes], *, form: str, under_way: int, seconds: float
) -> list[float]:
    """Seconds of each answer that ended within so many seconds."""
    times: list[float] = []
    bodies: list[Any] = (
        [{"image": base64.b64encode(one).decode()} for one in images] if form == "json" else list(images)
    )
    end = time.perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=under_way)) as session:

        async def one(first: int) -> None:
            place = first
            while time.perf_counter() < end:
                body = bodies[place % len(bodies)]
                place += under_way
                begin = time.perf_counter()
                given = (
                    {"json": body}
                    if form == "json"
                    else {"data": body, "headers": {"Content-Type": "image/jpeg"}}
                )
                async with session.post(url, **given) as response:
                    content = await response.read()
                    if response.status != 200 or not content.startswith(b"\x89PNG"):
                        raise SystemExit(f"{url}: {response.status} {content[:300]!r}")
                if time.perf_counter() <= end:
                    times.append(time.perf_counter() - begin)

        await asyncio.gather(*(one(first) for first in range(under_way)))
    return times


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(words: Sequence[str], probe: str, *, images: Sequence[bytes], form: str) -> Iterator[str]:
    """A server process, from its first good answer on."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        for _ in range(240):
            try:
                asyncio.run(asked(probe, images[:2], form=form, under_way=1, seconds=0.2))
                break
            except (aiohttp.ClientError, SystemExit, OSError):
                if process.poll() is not None:
                    raise SystemExit(f"{words}: ended: {process.stderr.read().decode()[-2000:]}") from None
                time.sleep(0.5)
        yield probe
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def serve_words(run: Path, port: int) -> list[str]:
    return [
        str(Path(sys.executable).with_name("fissura")), "serve", str(run), "--port", str(port),
        "--replicas", str(cpus()), "--cpus-per-replica", "1",
    ]  # fmt: skip


def measured(url: str, images: Sequence[bytes], *, form: str, seconds: float) -> dict[str, float]:
    asyncio.run(asked(url, images, form=form, under_way=UNDER_WAY, seconds=3))
    times = sorted(asyncio.run(asked(url, images, form=form, under_way=UNDER_WAY, seconds=seconds)))
    alone = asyncio.run(asked(url, images, form=form, under_way=1, seconds=min(seconds, 5)))
    quantiles = {f"p{q}": times[min(len(times) - 1, len(times) * q // 100)] for q in (50, 95, 99)}
    return {"images_per_second": len(times) / seconds, **quantiles, "alone": median(alone)}


def repetition(run: Path, folder: Path, images: Sequence[bytes], *, seconds: float) -> dict[str, Any]:
    """One turn of each side."""
    one = loops(run, folder, processes=1, threads=cpus(), seconds=seconds)
    many = loops(run, folder, processes=cpus(), threads=1, seconds=seconds)
    result: dict[str, Any] = {"loop_one_process": one, "loop_process_a_cpu": many}
    port = free_port()
    address = f"http://127.0.0.1:{port}/v1/segment?answer=mask"
    with server(serve_words(run, port), address, images=images, form="raw") as url:
        result["fissura"] = measured(url, images, form="raw", seconds=seconds)
    port = free_port()
    words = [sys.executable, str(PEER), str(run), str(port), str(cpus())]
    with server(words, f"http://127.0.0.1:{port}/predict", images=images, form="json") as url:
        result["litserve"] = measured(url, images, form="json", seconds=seconds)
    best = max(one, many)
    result["fissura_of_loop"] = result["fissura"]["images_per_second"] / best
    result["litserve_of_loop"] = result["litserve"]["images_per_second"] / best
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repetitions", nargs="?", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--role", choices=("loop",))
    parser.add_argument("--run", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.role == "loop":
        paths = sorted(arguments.images.iterdir())
        print(loop(arguments.run, paths, threads=arguments.threads, seconds=arguments.seconds))
        return 0
    plain: dict[str, Any] = {"cpus": cpus(), "image": [HEIGHT, WIDTH], "under_way": UNDER_WAY, "models": {}}
    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch, "drawn")
        write(SyntheticSpec(train=24, val=6, test=1, height=160, width=240), drawn)
        images = [path.read_bytes() for path in make_images(Path(scratch, "images"))]
        for name in arguments.models:
            run = make_run(Path(scratch, name), drawn, MODELS[name])
            turns = [
                repetition(run, Path(scratch, "images"), images, seconds=arguments.seconds)
                for _ in range(arguments.repetitions)
            ]
            plain["models"][name] = turns
            for turn in turns:
                print(name, json.dumps(turn), flush=True)
    write_json(RESULT, plain)
    ratios = [median(turn["fissura_of_loop"] for turn in turns) for turns in plain["models"].values()]
    print(f"of the bare loop: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; target {TARGET}")
    return 0 if min(ratios) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
