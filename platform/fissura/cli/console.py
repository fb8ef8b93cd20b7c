"""What a command prints: text and progress bars on a terminal, or one JSON document for machines."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, Literal

import typer

Format = Literal["text", "json"]
JsonOption = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON document on standard output, for machines.")
]


class Console:
    """Prints results to standard output and messages to standard error."""

    def __init__(self, output: Format) -> None:
        self.output = output

    @classmethod
    def of(cls, as_json: bool) -> "Console":
        """The console that a `--json` flag asks for."""
        return cls("json" if as_json else "text")

    def say(self, line: str) -> None:
        """Prints a message."""
        print(line, file=sys.stderr, flush=True)

    def result(self, plain: Any, text: str | Callable[[], str]) -> None:
        """Prints the result of the command: `plain` as JSON, or `text`."""
        if self.output == "json":
            text = json.dumps(plain, indent=2, default=str, allow_nan=False)
        print(text if isinstance(text, str) else text(), flush=True)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Inside the block, what a library prints goes to standard error: Ray reports dead workers."""
        with redirect_stdout(sys.stderr):
            yield

    @contextmanager
    def progress(self, description: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar updated with (done, total) from the first call to the last; on a terminal only."""
        if self.output == "json" or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Terminal(stderr=True), transient=True)
        task = bar.add_task(description, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if done < total:
                bar.start()
            else:
                bar.stop()

        try:
            yield show
        finally:
            bar.stop()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an aligned text table; the keys of the first row are the column heads."""
    if not rows:
        return "(nothing)"
    cells = [list(rows[0]), *([_cell(row.get(head)) for head in rows[0]] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
