"""The commands about single models: `train`, `evaluate`, `score`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fissura.cli.board import board_text
from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import (
    PROTOCOLS,
    AddressOption,
    CacheOption,
    DataOption,
    ProtocolOption,
    SetOption,
    parse_sets,
    threshold_option,
)
from fissura.core import text
from fissura.core.errors import SpecError
from fissura.core.problems import summed_up

if TYPE_CHECKING:
    from fissura.records.manifest import Manifest


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a run's recipe.json.")],
    data: DataOption,
    sets: SetOption = None,
    storage: Annotated[
        Path, typer.Option(help="The run goes to `runs` in this folder, shared by all workers.")
    ] = Path("studies"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Data-parallel workers, by Ray Train.")] = 1,
    cpus_per_worker: Annotated[int | None, typer.Option(min=1, help="By default all, shared out.")] = None,
    address: AddressOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one recipe. A run that was interrupted goes on; one that is finished is not trained again.

    Example: [bold]fissura train small_unet --data cfd:/data/cfd --set data.batch_size=4[/bold]
    """
    from fissura import api

    console = Console.of(as_json)

    def on_epoch(record: dict[str, Any]) -> None:
        validated = f"validation loss {record['val/loss']:.4f}, F1 {record['val/f1']:.4f}"
        if "train/loss" not in record:
            console.say(f"nothing to train: {validated}")
            return
        console.say(
            f"epoch {record['epoch']}/{record['epochs']}: loss {record['train/loss']:.4f}, {validated},"
            f" {record['images_per_second']:.1f} images/s"
            f"{', kept' if record['kept_epoch'] == record['epoch'] else ''}"
        )

    with console.working(), console.progress("preparing images") as on_image:
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
            on_image=on_image,
            say=console.say,
        )
    following = ["fissura", "evaluate", str(run), *(word for dataset in data for word in ("--data", dataset))]
    console.result(
        {"run": str(run), **manifest.plain()},
        f"run: {run}\n{_spent(manifest)}\nnext: {shlex.join(following)}",
    )


def _spent(manifest: "Manifest") -> str:
    epochs = f"best epoch {manifest.best_epoch} of {manifest.epochs}, " if manifest.epochs else "fitted in "
    return f"{epochs}{manifest.seconds:.0f} s"


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    data: DataOption,
    protocol: ProtocolOption = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="The images to score.")] = "test",
    threshold: Annotated[
        float | None,
        threshold_option("By default chosen on the run's validation images."),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a classifier: `clean` (by default), `shadow`, `stain`, `low_contrast`; may be repeated."
        ),
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on a data set. Maps are kept in the run, and its scores join the leaderboard.

    The scores that were asked for are printed first, then those of the run that stood there before.

    Example: [bold]fissura evaluate studies/runs/1a2b3c4d5e6f --data cfd:/data/cfd[/bold]
    """
    from fissura import api
    from fissura.records.store import PREDICTIONS

    console = Console.of(as_json)
    with console.progress("scoring images") as on_image:
        scored = api.evaluate(
            run,
            data=data,
            protocols=protocol or (),
            split=split,
            threshold=threshold,
            conditions=condition or (),
            cache=cache,
            say=console.say,
            on_image=on_image,
        )
    board = api.leaderboard([run])
    requested, earlier = board.divided(scored)
    maps = {"maps": str(run / PREDICTIONS)} if (run / PREDICTIONS).is_dir() else {}
    kept = [f"{name}: {path}" for name, path in maps.items()]
    console.result(
        {"run": str(run), **maps, "asked": requested.plain(), "scores": board.plain()},
        lambda: "\n\n".join([_requested_first(board_text(requested), board_text(earlier)), *kept]),
    )


def _requested_first(requested: str, earlier: str) -> str:
    """The requested scores, then the run's earlier ones."""
    return f"{requested}\n\nscored before:\n\n{earlier}" if earlier else requested


def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="Folder of 8-bit grey PNGs: value / 255 is the probability; where all hold 0 and one level"
            " alone, they are masks.",
        ),
    ],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder of masks of the same names.")],
    protocol: Annotated[list[str], typer.Option(help=f"{PROTOCOLS}.")],
    threshold: Annotated[
        float,
        threshold_option("A pixel is predicted where its probability is at least this."),
    ] = 0.5,
    valid: Annotated[Path | None, typer.Option(help="Folder of valid-pixel masks (a field of view).")] = None,
    mask_threshold: Annotated[
        int | None, typer.Option(min=0, max=254, help="Of grey masks: what is above is crack.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the data; by default the masks' folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score anyone's predictions against masks.

    Example: [bold]fissura score predictions masks --protocol tolerant:2[/bold]
    """
    from fissura import api

    if len(protocol) > 1:
        raise SpecError(
            f"--protocol: predictions are scored under one, and {text.listed(protocol)} are given; run it"
            " once for each"
        )
    console = Console.of(as_json)
    with console.progress("scoring images") as on_image:
        scored = api.score(
            predictions,
            masks,
            protocol=protocol[0],
            threshold=threshold,
            valid=valid,
            mask_threshold=mask_threshold,
            name=name,
            on_image=on_image,
        )
    for remark in summed_up(scored.remarks):
        console.say(f"note: {remark}")
    plain = scored.plain()
    console.result(plain, lambda: score_text(plain))


def score_text(plain: dict[str, Any]) -> str:
    """The scores as text and a table."""
    rows = [{"pooling": pooling, **plain[pooling]} for pooling in ("micro", "macro") if plain[pooling]]
    data = text.data(plain["data_name"], plain["data_digest"])
    lines = [
        f"{data}: {plain['protocol']} at {plain['threshold']:g} on {text.count(plain['images'], 'image')}",
        table(rows) if rows else plain["remark"],
    ]
    if "ods" in plain:
        ods, ois = plain["ods"], plain["ois"]
        lines.append(
            f"ODS {ods['f1']:.4f} at {ods['threshold']:.4f}, OIS {ois['mean']:.4f} (sd {ois['sd']:.4f}),"
            f" AP {plain['ap']:.4f} (swept on these images)"
        )
    if "crack_free" in plain:
        free = plain["crack_free"]
        lines.append(
            f"images without a crack: {free['images']}, with {free['components_per_image']:g} false alarms"
            f" and {free['pixels_per_image']:g} false pixels an image,"
            f" {free['components_per_megapixel']:g} and {free['pixels_per_megapixel']:g} a megapixel"
        )
    return "\n".join(lines)
