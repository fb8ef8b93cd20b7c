"""What long work tells while it goes on, a line each, and to whom."""

from collections.abc import Callable

Say = Callable[[str], None]


def silent(_: str) -> None:
    """Tells nobody."""
