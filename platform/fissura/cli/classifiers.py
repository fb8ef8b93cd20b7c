"""The command `interference`."""

from pathlib import Path
from typing import Annotated

import typer

from fissura.cli.console import Console, JsonOption
from fissura.cli.options import CacheOption, DataOption


def interference(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders of classification runs.")],
    data: DataOption,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge classifiers under shadow, stain and low contrast; say what changed from the first to each other.

    Example: [bold]fissura interference RUN RUN --data class_folder:/data/walls[/bold]
    """
    from fissura import api
    from fissura.reports.interference_export import as_text

    console = Console.of(as_json)
    with console.progress("classifying images") as on_image:
        tables = api.interference(runs, data=data, cache=cache, say=console.say, on_image=on_image)
    plain = [
        {
            "dataset": test_table.test_set.dataset,
            "data_name": test_table.data_name,
            "data_digest": test_table.test_set.data_digest,
            "images": test_table.images,
            "models": {
                row.model: {name: vars(score) for name, score in row.scores.items()}
                for row in test_table.rows
            },
        }
        for test_table in tables
    ]
    console.result(plain, lambda: as_text(tables, kind="md").rstrip())
