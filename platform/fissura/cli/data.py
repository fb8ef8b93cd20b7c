"""The commands about data sets: `data list`, `data check`, `data prepare`, `data prune`, `data fetch`."""

import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fissura.cli.console import Console, JsonOption, table
from fissura.cli.options import CacheOption
from fissura.core.errors import SpecError
from fissura.core.problems import summed_up
from fissura.core.text import count, nearest

if TYPE_CHECKING:
    from fissura.data.check import CheckReport
    from fissura.data.resize import Fixed

SizeOption = Annotated[
    str | None,
    typer.Option(metavar="WIDTHxHEIGHT", help="The working size of a recipe that resizes its images."),
]

app = typer.Typer(
    help="Know, check, prepare, prune and fetch data sets.\n\nExample: [bold]fissura data list[/bold]",
    no_args_is_help=True,
)


@app.command("list")
def list_kinds(
    kind: Annotated[str | None, typer.Argument(help="Show all about this kind.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the kinds of data sets, or show one: its folders, where to get it, its licence, what to cite.

    Example: [bold]fissura data list cfd[/bold]
    """
    from fissura.data.datasets import kinds
    from fissura.data.labelled import FORMS, labelled_kinds
    from fissura.data.options import options_of

    console, known = Console.of(as_json), {**kinds(), **labelled_kinds()}
    if kind and kind not in known:
        raise SpecError(f"`{kind}` is no kind of data set{nearest(kind, known)}; known: {', '.join(known)}")
    rows = [
        {
            "kind": name,
            "form": FORMS.get(name, f"{name}:ROOT"),
            "options": options_of(dataset_kind),
            **vars(dataset_kind.info),
        }
        for name, dataset_kind in known.items()
        if kind in (None, name)
    ]
    console.result(rows, lambda: _card(rows[0]) if kind else _overview(rows))


@app.command()
def check(
    data: Annotated[str, typer.Argument(metavar="KIND:ROOT", help="A data set, such as `cfd:/data/cfd`.")],
    size: SizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name every defect of a data set: unpaired, broken or lossy files, wrong sizes and labels, leaks.

    Cracks that would be lost at the working size (512x512 where --size says none) are counted.

    Example: [bold]fissura data check folder:/data/bridge[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.progress("checking images") as on_image:
        checked = api.check(data, resize=_size(size), on_image=on_image)
    console.result(checked.plain(), lambda: _findings(checked))
    if checked.problems:
        raise typer.Exit(2)


@app.command()
def prepare(
    data: Annotated[list[str], typer.Argument(metavar="KIND:ROOT...", help="Data sets.")],
    cache: CacheOption = None,
    size: SizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every image once into the cache that all trials of this machine share.

    Those with masks are kept at their own size, or at --size.

    Example: [bold]fissura data prepare cfd:/data/cfd[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    with console.progress("preparing images") as on_image:
        prepared = api.prepare(data, resize=_size(size), cache=cache, say=console.say, on_image=on_image)
    plain = {"cache": str(prepared.cache), "digest": prepared.digest, "samples": prepared.samples}
    console.result(plain, lambda: repr(prepared))


@app.command()
def prune(
    keep: Annotated[float, typer.Option(min=0, metavar="GIB", help="Room for images that stay.")],
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the prepared images that were used least recently, until the others take --keep GiB at most.

    What runs goes on; what begins later prepares its images again.

    Example: [bold]fissura data prune --keep 20[/bold]
    """
    from fissura import api

    console = Console.of(as_json)
    pruning = api.prune(keep_gib=keep, cache=cache)
    console.result({"cache": str(pruning.cache), "freed_bytes": pruning.freed_bytes}, lambda: repr(pruning))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="`cfd` is downloaded, `synthetic` is drawn.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes.")],
    mirror: Annotated[str | None, typer.Option(help="Another address of the same files.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Get a data set, and say its licence. A download that broke off goes on; every file is checked against
    its known hash.

    Example: [bold]fissura data fetch cfd /data/cfd[/bold]
    """
    from fissura.data.datasets import kinds
    from fissura.data.fetch import FETCHED
    from fissura.data.fetch import fetch as fetch_data

    console = Console.of(as_json)
    if name in FETCHED:
        info = kinds()[name].info
        console.say(f"{info.title}: licence: {info.licence}")
    with console.progress(f"fetching {name}") as on_progress:
        fetch_data(name, directory, mirror=mirror, on_progress=on_progress)
    data = f"{name}:{directory}"
    console.result({"data": data}, f"{data}\nnext: {shlex.join(['fissura', 'data', 'check', data])}")


def _size(text: str | None) -> "Fixed | None":
    from fissura.data.resize import Fixed

    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise SpecError(f"--size: a size is WIDTHxHEIGHT in pixels, such as 512x512, not `{text}`")
    return Fixed.load({"width": int(width), "height": int(height)}, source="--size")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())


def _overview(rows: list[dict[str, Any]]) -> str:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    brief = [
        {
            "kind": row["kind"],
            "images": _counted(row["counts"]) or "any number",
            "what it is": textwrap.shorten(row["title"], max(20, columns - 50), placeholder=" …"),
        }
        for row in rows
    ]
    return f"{table(brief)}\n\nall about one of them: fissura data list KIND"


def _card(row: dict[str, Any]) -> str:
    lines = {
        "images": _counted(row["counts"]),
        "folders": row["layout"],
        "obtain": row["obtain"],
        "licence": row["licence"],
        "cite": row["citation"],
        "name it": row["form"],
        "options": "behind the root, ?OPTION=VALUE&...: "
        + ", ".join(f"{key}={value}" for key, value in row["options"].items()),
    }
    return "\n".join([row["title"], *(f"  {head + ':':9}{text}" for head, text in lines.items() if text)])


def _findings(checked: "CheckReport") -> str:
    lines = [f"{checked.title} ({checked.root})", f"samples: {_counted(checked.samples) or 'none'}"]
    if checked.crack_share is not None:
        lines.append(f"crack pixels: {100 * checked.crack_share:.2f} %")
    for name, texts in (("error", checked.problems), ("warning", checked.warnings), ("note", checked.notes)):
        lines += [f"{name}: {text}" for text in summed_up(texts)]
    lines.append(f"{count(len(checked.problems), 'error')}, {count(len(checked.warnings), 'warning')}")
    return "\n".join(lines)
