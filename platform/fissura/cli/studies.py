"""The commands about searches: `search`, `report`, `demo`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fissura.cli.board import board_text
from fissura.cli.console import Console, JsonOption
from fissura.cli.options import AddressOption, CacheOption, SetOption, parse_sets
from fissura.core.text import count

if TYPE_CHECKING:
    from fissura.distributed.search.search_result import SearchResult


def search(
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A search space's name, or a YAML file.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="KIND:ROOT", help="A data set; may be repeated.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; by default the space's.")] = None,
    storage: Annotated[
        Path, typer.Option(help="Folder of studies, shared by all nodes of a cluster.")
    ] = Path("studies"),
    name: Annotated[str | None, typer.Option(help="The study's name; by default the space's.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with the study as it was planned.")
    ] = False,
    extend: Annotated[
        int, typer.Option(min=0, metavar="N", help="Go on with the study, and add N trials.")
    ] = 0,
    sweep: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Vary one parameter at a time from the paper's point: N values of each range, each choice's"
            " others. Of a new study, these are the trials, beside the paper's own; with --resume, they are"
            " added, but for those that it has.",
        ),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="A parameter for --sweep, by default all; may be repeated."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="What to make best, such as `val/f1` or `latency_ms`, by default the space's; may be"
            " repeated, for a Pareto front.",
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(help="The space's profile; `auto`: its `cpu` or `gpu`; `none`: the paper's settings."),
    ] = "auto",
    sets: SetOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler.")] = 0,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Trials at a time.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(min=1, help="By default all, shared out.")] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="By default 1 where there is one.")
    ] = None,
    trial_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="End a trial that finishes no epoch for so long; by default ten times the longest epoch so"
            " far, ten minutes at least. Of classifiers: a setting that is not judged in so long; an hour.",
        ),
    ] = None,
    workers_per_trial: Annotated[
        int,
        typer.Option(
            min=1,
            help="Train each trial with so many data-parallel workers, on as many nodes as it takes; they"
            " share its CPUs, GPUs and batches.",
        ),
    ] = 1,
    address: AddressOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a paper's hyperparameters for the best model on your images.

    Example: [bold]fissura search unet_backbones --data cfd:/data/cfd --trials 20[/bold]
    """
    console = Console.of(as_json)
    from fissura.spaces.load import check_profile

    if space is not None and not (resume or extend):
        check_profile(space, profile)
    from fissura.distributed.environment import prepare_environment

    prepare_environment(address)
    from fissura import api
    from fissura.distributed.preflight import Hardware

    with console.working(), console.progress("preparing images") as on_image:
        result = api.search(
            space,
            data=data or (),
            storage=storage,
            trials=trials,
            name=name,
            profile=profile,
            fixed=parse_sets(sets),
            seed=seed,
            begin="resume" if resume else "new",
            extend=extend,
            sweep=sweep,
            over=over or (),
            objectives=objective or (),
            hardware=Hardware(address, concurrency, cpus_per_trial, gpus_per_trial, workers_per_trial),
            trial_timeout=trial_timeout,
            cache=cache,
            say=console.say,
            on_image=on_image,
        )
    again = ["search", "--resume", "--storage", str(result.study.parent), "--name", result.study.name]
    finish(console, result, again=again)


def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder.")],
    as_json: JsonOption = False,
) -> None:
    """Write a study's report: one HTML file with its history, what mattered, the best trials, and pictures.

    Example: [bold]fissura report studies/unet_backbones[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    path = api.report(study, say=console.say)
    console.result({"report": str(path)}, f"report: {path}")


def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where data, study and results go.")] = Path(
        "demo"
    ),
    trials: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Draw synthetic cracks, search a small recipe, rank and show the result. What is done is not done again.

    Example: [bold]fissura demo --dir demo[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.working():
        result = api.demo(directory, trials=trials, say=console.say)
    finish(console, result, again=["demo", "--dir", str(directory), "--trials", str(trials)])


def finish(console: Console, result: "SearchResult", *, again: Sequence[str]) -> None:
    """Prints the result of a search, which the command `again` goes on with; exits with code 1 if it was
    stopped on request."""
    console.result(_plain(result), lambda: _text(result, again=again))
    if result.interrupted:
        raise typer.Exit(1)


def _plain(result: "SearchResult") -> dict[str, Any]:
    return {
        "study": str(result.study),
        "planned": result.planned,
        "trials": result.trials,
        "best": result.best,
        "best_run": None if result.best_run is None else str(result.best_run),
        "interrupted": result.interrupted,
        "seconds": result.seconds,
        "failures": result.failures,
        "files": [str(path) for path in result.conclusion.files],
        "leaderboard": result.conclusion.board.plain(),
    }


def _text(result: "SearchResult", *, again: Sequence[str]) -> str:
    lines = []
    done = sum(result.trials.values())
    states = ", ".join(f"{count} {state}" for state, count in sorted(result.trials.items()))
    lines.append(f"{done} of {count(result.planned, 'trial')} ({states or 'none'}) in {result.seconds:.0f} s")
    if result.best is not None:
        values = ", ".join(f"{name} {value:.4f}" for name, value in result.best["values"].items())
        lines.append(f"best: trial {result.best['trial']}, {values}, on validation images")
        lines += [f"  {path} = {value}" for path, value in result.best["parameters"].items()]
        lines += [] if result.best_run is None else [f"  run: {result.best_run}"]
    lines += [f"trial {number} failed: {reason}" for number, reason in result.failures.items()]
    if result.conclusion.board.tables:
        lines += ["", board_text(result.conclusion.board)]
    lines += ["", *(str(path) for path in result.conclusion.files)]
    if result.interrupted:
        lines.append(f"stopped on request; go on with: fissura {shlex.join(again)}")
    return "\n".join(lines)
