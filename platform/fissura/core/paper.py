"""Where something was published."""

from typing import NamedTuple


class Paper(NamedTuple):
    """The paper of a loss, a network or a method: its authors, where it appeared, its year; None: unknown."""

    authors: str
    venue: str | None
    year: int | None

    def __str__(self) -> str:
        return f"{self.authors}, {self.venue}" if self.venue else self.authors
