"""The commands `serve` and `rollout`: serve a model on Ray Serve, and put its next version in place."""

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fissura.cli.console import Console, JsonOption
from fissura.cli.options import AddressOption, threshold_option

TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="A file that holds the bearer token; or set FISSURA_TOKEN."),
]


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]RUN...", help="Folders of runs; the first is the default model."),
    ] = None,
    best: Annotated[
        list[Path] | None, typer.Option(metavar="STUDY", help="The best run of a study; may be repeated.")
    ] = None,
    threshold: Annotated[
        float | None,
        threshold_option("By default the one that each run's evaluation chose."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; other machines need a token then.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    replicas: Annotated[
        str, typer.Option(metavar="N|LEAST:MOST", help="Of each model; two numbers: as the load asks.")
    ] = "1",
    cpus_per_replica: Annotated[int | None, typer.Option(min=1, help="By default all, shared out.")] = None,
    gpus_per_replica: Annotated[float, typer.Option(min=0, help="May be a fraction.")] = 0.0,
    token_file: TokenOption = None,
    root: Annotated[
        list[str] | None,
        typer.Option(help="A folder or s3:// prefix that clients may name, for jobs; may be repeated."),
    ] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Of one request.")] = 256,
    max_pixels: Annotated[int, typer.Option(min=1024, help="Of one image.")] = 150_000_000,
    max_images: Annotated[int, typer.Option(min=1, help="In one request.")] = 64,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Until a request is answered.")] = 300.0,
    max_idle_seconds: Annotated[
        float, typer.Option(min=0.1, help="In which a client sends and reads nothing.")
    ] = 10.0,
    max_waiting_seconds: Annotated[
        float, typer.Option(min=0.1, help="What waits may take; what is beyond is refused.")
    ] = 20.0,
    write_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a serve.yaml instead of serving.")
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve models over HTTP, with a page at /, until Ctrl-C. On a cluster: deploy them, and return.

    Example: [bold]fissura serve --best studies/small_unet[/bold]
    """
    from fissura import api

    console, output = Console.of(as_json), sys.stdout
    limits = {
        "body_bytes": max_body_mb * 2**20,
        "pixels": max_pixels,
        "images": max_images,
        "seconds": max_seconds,
        "idle_seconds": max_idle_seconds,
        "waiting_seconds": max_waiting_seconds,
    }

    def ready(url: str) -> None:
        plain: dict[str, Any] = {"url": url}
        with redirect_stdout(output):
            console.result(plain, f"serving at {url}")

    with console.working():
        config = api.serve(
            runs or (),
            best=best or (),
            threshold=threshold,
            host=host,
            port=port,
            replicas=replicas,
            cpus_per_replica=cpus_per_replica,
            gpus_per_replica=gpus_per_replica,
            token_file=token_file,
            roots=root or (),
            limits=limits,
            write_config=write_config,
            address=address,
            say=console.say,
            ready=ready,
        )
    if config is not None:
        following = shlex.join(["serve", "deploy", str(config)])
        console.result({"config": str(config)}, f"{config}\nnext: {following}")


def rollout(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="The run to serve next.")] = None,
    endpoint: Annotated[str, typer.Option(help="The service's address.")] = "http://127.0.0.1:8000",
    name: Annotated[str | None, typer.Option(help="Of the model; by default the default one.")] = None,
    back: Annotated[bool, typer.Option("--back", help="Bring the run before back instead.")] = False,
    threshold: Annotated[
        float | None,
        threshold_option("By default the one that its evaluation chose."),
    ] = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a run in the place of a served model, or bring the one before back, without a failed request.

    Example: [bold]fissura rollout studies/runs/1a2b3c4d5e6f --name default[/bold]
    """
    from fissura import api
    from fissura.core.errors import SpecError

    if (run is None) != back:
        raise SpecError("name a run to serve next, or --back, and not both")
    console = Console.of(as_json)
    console.say("loading the new version beside the old one")
    card = api.rollout(
        run, endpoint=endpoint.rstrip("/"), name=name, threshold=threshold, token_file=token_file
    )
    console.result(card, lambda: f"{card['name']}: version {card['version']}, run {card['run']}")
