"""The command `plan`: what a search will take."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import CacheOption, SetOption, parse_sets
from fissura.core.text import count

if TYPE_CHECKING:
    from fissura.api.planning import Planned
    from fissura.operations.forecast.forecast import Forecast, Range


def plan(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A search space's name, or a YAML file.")],
    study: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Take epochs' times and curves from this study.")
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train N settings for some steps here, the paper's first."),
    ] = None,
    epoch_seconds: Annotated[
        float | None, typer.Option(min=1e-3, metavar="X", help="An epoch takes so long.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="KIND:ROOT", help="What --measure trains on; may be repeated."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="By default the space's.")] = None,
    nodes: Annotated[int, typer.Option(min=1, max=100_000, help="Nodes of the cluster.")] = 1,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of a node; by default this one's.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of a node; by default this one's.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; by default several are tried.")
    ] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="By default all, shared out.")] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="By default 1 where there is one.")
    ] = None,
    node_start: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Until a node is up; by default 180, for one node 0."),
    ] = None,
    failures: Annotated[float, typer.Option(min=0, max=3600, help="How often a node fails, an hour.")] = 0.0,
    preemptions: Annotated[
        float, typer.Option(min=0, max=3600, help="How often a spot node is taken, an hour.")
    ] = 0.0,
    price: Annotated[float | None, typer.Option(min=0, help="Of a node an hour.")] = None,
    spot_price: Annotated[float | None, typer.Option(min=0, help="Of a spot node an hour.")] = None,
    profile: Annotated[
        str,
        typer.Option(help="The space's profile; `auto`: its `cpu` or `gpu`; `none`: the paper's settings."),
    ] = "auto",
    sets: SetOption = None,
    repetitions: Annotated[int, typer.Option(min=1, max=10_000, help="Simulated searches.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a search will take before it is begun: time, CPU or GPU hours, cost, trials at a time.

    Example: [bold]fissura plan small_unet --epoch-seconds 20 --nodes 4 --gpus 1[/bold]
    """
    from fissura.api.planning import Nodes, Times
    from fissura.api.planning import plan as make

    console = Console.of(as_json)
    with console.working():
        planned = make(
            space,
            times=Times(study, measure, epoch_seconds),
            data=data or (),
            trials=trials,
            profile=profile,
            fixed=parse_sets(sets),
            seed=seed,
            nodes=Nodes(nodes, cpus, gpus, node_start, failures, preemptions, price, spot_price),
            concurrent=concurrency,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            repetitions=repetitions,
            cache=cache,
            say=console.say,
        )
    console.result(asdict(planned), lambda: _text(planned))


def _text(planned: "Planned") -> str:
    from fissura.operations.forecast.basis import typical
    from fissura.operations.forecast.forecast import NEAR

    cluster = "this machine" if planned.nodes == type(planned.nodes)() else count(planned.nodes.nodes, "node")
    lines = [
        f"{planned.space}: {count(planned.trials, 'trial')} of at most {count(planned.epochs, 'epoch')},"
        f" scheduler {planned.scheduler}, on {cluster}",
        f"{typical(planned.epoch_seconds)}: {planned.basis}",
        *planned.notes,
        "",
        table([_row(forecast, best=forecast is planned.best) for forecast in planned.forecasts]),
        "",
    ]
    best = planned.best
    lines.append(
        f"best: {best.lanes.concurrent} at a time, {duration(best.seconds.median)}"
        f" ({duration(best.seconds.low)} to {duration(best.seconds.high)} in nine of ten simulated searches);"
        f" the fewest that take at most {NEAR - 1:.0%} longer than the quickest"
    )
    if best.driver > 0.5:
        lines.append(
            f"the driver is busy for {best.driver:.0%} of the time, so trials wait for it: take fewer at a"
            " time, or share the search among several studies"
        )
    if planned.spot is not None and planned.spot.cost is not None:
        spot = planned.spot
        lines.append(
            f"on spot nodes: {duration(spot.seconds.median)}, cost {_range(planned.spot.cost)},"
            f" {spot.epochs_lost:.1f} epochs lost to preemptions"
        )
    return "\n".join(lines)


def _row(forecast: "Forecast", *, best: bool) -> dict[str, Any]:
    unit = "GPU" if forecast.lanes.gpus else "CPU"
    lanes = forecast.lanes
    each = count(lanes.gpus, "GPU") if lanes.gpus else count(lanes.cpus, "CPU")
    row = {
        "at a time": f"{forecast.lanes.concurrent}{' *' if best else ''}",
        "each": each,
        "time": duration(forecast.seconds.median),
        "nine of ten": f"{duration(forecast.seconds.low)} to {duration(forecast.seconds.high)}",
        "epochs": f"{forecast.epochs.median:.0f}",
        f"{unit} hours": f"{forecast.held_hours:.2f}",
        "used": f"{forecast.utilisation:.0%}",
        "driver": f"{forecast.driver:.0%}",
    }
    if forecast.cost is not None:
        row["cost"] = _range(forecast.cost)
    return row


def _range(value: "Range") -> str:
    return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole / 86400:.1f} days"
