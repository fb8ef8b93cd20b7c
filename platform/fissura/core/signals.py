"""Being asked to end."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(
    handle: Callable[[int, FrameType | None], None],
    *,
    numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[None]:
    """These signals are handled so while the block lasts."""
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets while the block lasts."""
    event = threading.Event()
    with handled(lambda *_: event.set()):
        yield event


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, by KeyboardInterrupt. By itself it would end the process at once
    and leave what it has started."""
    with handled(signal.default_int_handler, numbers=[signal.SIGTERM]):
        yield
