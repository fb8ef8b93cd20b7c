"""What a command prints: words and progress bars for people on a terminal, one JSON document for machines."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer

Format = Literal["text", "json"]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, for machines.")
]


class Console:
    """Standard output is for the result; what is said on the way goes to standard error."""

    def __init__(self, output: Format) -> None:
        self.output = output

    @classmethod
    def of(cls, as_json: bool) -> "Console":  # noqa: FBT001  typer's flag
        """The console that a `--json` flag asks for."""
        return cls("json" if as_json else "text")

    def say(self, line: str) -> None:
        """A line about the work."""
        print(line, file=sys.stderr, flush=True)

    def result(self, plain: Any, text: str | Callable[[], str]) -> None:
        """The result of the command: `plain` as JSON, or `text`."""
        if self.output == "json":
            print(json.dumps(plain, indent=2, default=str, allow_nan=False))
        else:
            print(text if isinstance(text, str) else text())

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar fed by (done, total); on a terminal only."""
        if self.output == "json" or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console as Terminal
        from rich.progress import Progress

        with Progress(console=Terminal(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as an aligned text table; the keys of the first are the heads."""
    if not rows:
        return "(nothing)"
    cells = [list(rows[0]), *([_cell(row.get(head)) for head in rows[0]] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
