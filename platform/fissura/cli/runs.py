"""The commands about single models: `train`, `evaluate`, `score`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import CacheOption, DataOption, ProtocolOption, SetOption, parse_sets


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a run's recipe.json.")],
    data: DataOption,
    sets: SetOption = None,
    storage: Annotated[Path, typer.Option(help="Folder for the run; shared by all workers.")] = Path("studies"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Data-parallel workers, by Ray Train.")] = 1,
    cpus_per_worker: Annotated[int | None, typer.Option(min=1)] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster, or `auto`; by default this machine.")] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one recipe. A run that was interrupted goes on; one that is finished is not trained again.

    Example: [bold]fissura train small_unet --data folder:/data/bridge --set phases.train.epochs=20[/bold]
    """
    from fissura import api

    console = Console.of(as_json)

    def on_epoch(record: dict[str, Any]) -> None:
        console.say(
            f"epoch {record['epoch']}: loss {record['train/loss']:.4f}, validation loss {record['val/loss']:.4f},"
            f" F1 {record['val/f1']:.4f}, {record['images_per_second']:.1f} images/s"
        )

    run, manifest = api.train(
        recipe,
        data=data,
        storage=storage,
        fixed=parse_sets(sets),
        seed=seed,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        address=address,
        cache=cache,
        on_epoch=on_epoch,
    )
    words = " ".join(f"--data {one}" for one in data)
    console.result(
        {"run": str(run), **manifest.plain()},
        f"run: {run}\nbest epoch {manifest.best_epoch} of {manifest.epochs}, {manifest.seconds:.0f} s\n"
        f"next: fissura evaluate {run} {words}",
    )


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    data: DataOption,
    protocol: ProtocolOption = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="The images to score.")] = "test",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="By default chosen on the run's validation images.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on a data set. The maps are kept in the run, and the scores join its leaderboard.

    Example: [bold]fissura evaluate studies/runs/1a2b3c --data cfd:/data/cfd --protocol tolerant:2[/bold]
    """
    from fissura import api
    from fissura.cli.board import brief, rows

    console = Console.of(as_json)
    with console.progress("images") as on_image:
        api.evaluate(
            run, data=data, protocols=protocol or (), split=split, threshold=threshold, on_image=on_image
        )
    board = api.leaderboard([run])
    console.result({"run": str(run), "scores": rows(board)}, lambda: brief(board))


def score(
    predictions: Annotated[Path, typer.Argument(help="Folder of 8-bit grey PNG maps: value / 255 is the probability.")],
    masks: Annotated[Path, typer.Argument(help="Folder of masks of the same names.")],
    protocol: Annotated[str, typer.Option(help="`pixel`, `tolerant:2`, `overlap`, `flexible:2`.")],
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Predicted where probability >= threshold.")] = 0.5,
    valid: Annotated[Path | None, typer.Option(help="Folder of valid-pixel masks (a field of view).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score anyone's predictions against masks.

    Example: [bold]fissura score predictions masks --protocol tolerant:2 --threshold 0.2[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.progress("images") as on_image:
        found = api.score(
            predictions, masks, protocol=protocol, threshold=threshold, valid=valid, on_image=on_image
        )
    plain = found.plain()
    console.result(plain, lambda: score_text(plain))


def score_text(plain: dict[str, Any]) -> str:
    """The scores as words and a table."""
    rows = [{"pooling": pooling, **plain[pooling]} for pooling in ("micro", "macro")]
    lines = [f"{plain['protocol']} at {plain['threshold']:g} on {plain['images']} images", table(rows)]
    if "ods" in plain:
        ods, ois = plain["ods"], plain["ois"]
        lines.append(
            f"ODS {ods['f1']:.4f} at {ods['threshold']:.4f}, OIS {ois['mean']:.4f} (sd {ois['sd']:.4f}), AP {plain['ap']:.4f}"
            " (swept on these images)"
        )
    return "\n".join(lines)
