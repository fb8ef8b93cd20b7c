"""The command `batch`: runs a model over folders of images, one row for each image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import AddressOption, CacheOption, ProtocolOption
from fissura.cli.runs import score_text
from fissura.cli.serve import TokenOption
from fissura.core import text
from fissura.core.problems import summed_up
from fissura.data.file_kinds import left_out_line

if TYPE_CHECKING:
    from fissura.batches.report import BatchReport

SHOWN = 10


def batch(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES", help="A folder, a file, s3://BUCKET/PREFIX, or a data set KIND:ROOT."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the results go; what was begun there goes on.")
    ],
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="The service's address.")] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A run's folder: scored by Ray, without a service.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Masks of the images' names, to score the model by.")
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Of a data set; by default `test`.")
    ] = None,
    protocol: ProtocolOption = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="By default the service's default.")
    ] = None,
    mm_per_pixel: Annotated[
        float | None,
        typer.Option(min=1e-9, max=1e5, help="The width of a pixel on the surface, for lengths in mm."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="`masks`, `probabilities` or `overlays`, beside the table; may be repeated."),
    ] = None,
    failed: Annotated[
        Literal["keep", "retry"], typer.Option(help="What to do with images that failed before.")
    ] = "keep",
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Images under way at once.")] = 8,
    token_file: TokenOption = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Of a run; by default one a CPU.")] = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="Of a run; may be a fraction.")] = 0.0,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Of a run: on the cluster that this machine is part of.")
    ] = False,
    address: AddressOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a folder of images through a service, or by a run: one row an image; with masks, scores too.

    A batch that ended early, for whatever reason, goes on when it is asked again. Exit code 1: one failed.

    Example: [bold]fissura batch walls --endpoint http://127.0.0.1:8000 --out found[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.progress("scoring images") as on_image:
        report = api.batch(
            images,
            out=out,
            endpoint=endpoint,
            run=run,
            masks=masks,
            split=split,
            protocols=protocol or (),
            model=model,
            mm_per_pixel=mm_per_pixel,
            keep=keep or (),
            failed=failed,
            concurrency=concurrency,
            token_file=token_file,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            address="auto" if cluster and address is None else address,
            cache=cache,
            say=console.say,
            on_image=on_image,
        )
    result = report.result
    failures = summed_up(
        error if error.startswith(name) else f"{name}: {error}" for name, error in report.failures
    )
    for failure in failures[:SHOWN]:
        console.say(f"failed: {failure}")
    if len(failures) > SHOWN:
        console.say(f"and {len(failures) - SHOWN} more; see the column `error`")
    for remark in summed_up((report.scores or {}).get("remarks", ())):
        console.say(f"note: {remark}")
    if result.stopped is not None:
        console.say(
            f"stopped: {result.stopped}; {result.done} of {text.count(result.images, 'image')} are done:"
            " run the same command again to go on"
        )
    console.result(batch_plain(report), lambda: batch_text(report))
    if result.stopped is not None or result.failed:
        raise typer.Exit(1)


def batch_plain(report: "BatchReport") -> dict[str, Any]:
    """The result of a batch as JSON types."""
    result = report.result
    return {
        "out": str(report.out),
        "results": None if result.results is None else str(result.results),
        "model": report.question.model,
        "version": report.question.version,
        "run": report.question.run,
        "images": result.images,
        "done": result.done,
        "failed": result.failed,
        "left_out": list(report.left_out),
        "stopped": result.stopped,
        "scores": report.scores,
    }


def batch_text(report: "BatchReport") -> str:
    """The result of a batch as text and tables."""
    result = report.result
    lines = [
        f"{result.done} of {text.count(result.images, 'image')}, {result.failed} failed:"
        f" {result.results or report.out}"
    ]
    if report.left_out:
        lines.append(left_out_line(report.left_out))
    if report.scores is not None:
        lines += scores_text(report.scores)
    return "\n".join(lines)


def scores_text(scores: dict[str, Any]) -> list[str]:
    """The scores of an evaluation against masks or labels."""
    left_out = scores["left_out"]
    lines = [f"left out of the scores, for they have no result: {len(left_out)}"] if left_out else []
    if "confusion" not in scores:
        return [*lines, *(score_text(protocol_scores) for protocol_scores in scores["scores"])]
    overall = {name: value for name, value in scores["scores"].items() if not name.startswith("class_")}
    counts = [
        {"label": name, **dict(zip(scores["classes"], row, strict=True))}
        for name, row in zip(scores["classes"], scores["confusion"], strict=True)
    ]
    return [
        *lines,
        f"{text.data(scores['data_name'], scores['data_digest'])}: {text.count(scores['images'], 'image')}",
        table([overall]),
        "images by label and prediction:",
        table(counts),
    ]
