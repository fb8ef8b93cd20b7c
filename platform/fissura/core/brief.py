"""What a verb gives back: it prints in a few lines, and its rows are a data frame."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")


class Brief(ABC):
    """A result for a notebook."""

    @abstractmethod
    def lines(self) -> list[str]:
        """What it comes to, in a few lines."""

    @abstractmethod
    def rows(self) -> Sequence[dict[str, Any]]:
        """Its rows, each by the names of its columns."""

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def to_pandas(self) -> "pandas.DataFrame":
        """Its rows as a data frame."""
        import pandas

        return pandas.DataFrame(list(self.rows()))


class Rows(Brief, list[T]):
    """A list of dataclasses; `head` are the lines about them, and `run` the run that they are of."""

    def __init__(
        self, items: Iterable[T], *, head: Callable[[Sequence[T]], list[str]], run: Path | None
    ) -> None:
        super().__init__(items)
        self._head, self.run = head, run

    def lines(self) -> list[str]:
        """Those of `head`, and the run."""
        return [*self._head(self), *([f"run: {self.run}"] if self.run else [])]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each of them, by its fields."""
        return [
            {field.name: getattr(item, field.name) for field in fields(item)}
            for item in self
            if is_dataclass(item) and not isinstance(item, type)
        ]

    __repr__ = Brief.__repr__
