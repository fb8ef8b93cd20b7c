"""The commands about data sets: `data list`, `data check`, `data prepare`, `data fetch`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fissura.cli.console import Console, JsonOption
from fissura.cli.options import CacheOption

app = typer.Typer(help="Know, check, prepare and fetch data sets.", no_args_is_help=True)
Named = Annotated[str, typer.Argument(metavar="KIND:ROOT", help="A data set, such as `cfd:/data/cfd`.")]


@app.command("list")
def list_kinds(as_json: JsonOption = False) -> None:
    """List the kinds of data sets: what they are, their licence, and where to get them.

    Example: [bold]fissura data list[/bold]
    """
    from fissura.data.datasets import kinds

    console = Console.of(as_json)
    rows = [{"kind": name, **vars(kind.info)} for name, kind in kinds().items()]
    console.result(rows, lambda: "\n\n".join(_described(row) for row in rows))


@app.command()
def check(data: Named, as_json: JsonOption = False) -> None:
    """Name every defect of a data set: unpaired, broken or lossy files, wrong sizes and labels, leaks between splits.

    Example: [bold]fissura data check folder:/data/bridge[/bold]
    """
    from fissura.data.check import check as check_source
    from fissura.data.datasets import parse_source

    console = Console.of(as_json)
    source = parse_source(data)
    with console.progress("images") as on_sample:
        found = check_source(source, on_sample=on_sample)
    lines = [f"{found.title} ({found.root})"]
    lines.append("samples: " + ", ".join(f"{count} {split}" for split, count in found.samples.items()))
    if found.crack_share is not None:
        lines.append(f"crack pixels: {100 * found.crack_share:.2f} %")
    for name, texts in (("error", found.problems), ("warning", found.warnings), ("note", found.notes)):
        lines += [f"{name}: {text}" for text in texts]
    lines.append("no errors" if not found.problems else f"{len(found.problems)} errors")
    console.result(found.plain(), "\n".join(lines))
    if found.problems:
        raise typer.Exit(2)


@app.command()
def prepare(
    data: Annotated[list[str], typer.Argument(metavar="KIND:ROOT...", help="Data sets.")],
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decode every image once, at its own size, into the cache that all trials of this machine share.

    Example: [bold]fissura data prepare cfd:/data/cfd[/bold]
    """
    from fissura.data.cache import default_cache
    from fissura.data.cache import prepare as prepare_images
    from fissura.data.resize import Native
    from fissura.data.sources import parse_datasets

    console = Console.of(as_json)
    folder = cache or default_cache()
    with console.progress("images") as on_sample:
        prepared = prepare_images(parse_datasets(data), resize=Native(), directory=folder, on_sample=on_sample)
    counts = {split: len(prepared.indices(split)) for split in ("train", "val", "test")}
    plain = {"cache": str(prepared.directory / prepared.digest), "digest": prepared.digest, "samples": counts}
    console.result(plain, f"{plain['cache']}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="`cfd` is downloaded, `synthetic` is drawn.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes.")],
    mirror: Annotated[str | None, typer.Option(help="Another address of the same files.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Get a data set. A download that broke off goes on; every file is checked against its known hash.

    Example: [bold]fissura data fetch cfd /data/cfd[/bold]
    """
    from fissura.data.fetch import fetch as fetch_data

    console = Console.of(as_json)
    with console.progress(name) as on_progress:
        fetch_data(name, directory, mirror=mirror, on_progress=on_progress)
    console.result({"data": f"{name}:{directory}"}, f"{name}:{directory}\nnext: fissura data check {name}:{directory}")


def _described(row: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in row["counts"].items())
    return "\n".join(
        [
            f"{row['kind']}: {row['title']}{f' ({counts})' if counts else ''}",
            f"  layout:  {row['layout']}",
            f"  obtain:  {row['obtain']}",
            f"  licence: {row['licence']}",
            f"  cite:    {row['citation']}",
        ]
    )
