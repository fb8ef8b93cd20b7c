"""Where something was published."""

from typing import NamedTuple


class Paper(NamedTuple):
    """The paper of a loss, a network or a method: its authors, where it appeared, its year."""

    authors: str
    venue: str
    year: int

    def __str__(self) -> str:
        return f"{self.authors}, {self.venue}"
